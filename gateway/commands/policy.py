"""`meterhouse policy`: explain one request, try a version on what was decided before, or put one in
force.
"""

import argparse
import itertools
import json
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any, Final

from gateway.commands import policy_steps
from gateway.commands.policy_steps import policy_id
from gateway.commands.times import instant

_REPLAY_WITHIN_S: Final = 3_600.0
_TOLD_EVERY_S: Final = 1.0
_MOST_MOVES: Final = 20


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("policy", help="explain decisions, try drafts, put in force")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    explain = verbs.add_parser("explain", help="decide a request without making it")
    explain.add_argument("--key", required=True, help="id, or tenant/team/name")
    explain.add_argument("--model", required=True)
    explain.add_argument("--input-tokens", type=int, default=1000)
    explain.add_argument("--max-tokens", type=int)
    explain.add_argument("--stream", action="store_true")
    explain.add_argument(
        "--service-tier", choices=("auto", "standard", "batch", "flex", "priority")
    )
    replay = verbs.add_parser("replay", help="try a version on what was decided before")
    replay.add_argument("policy", help="id, or the policy's name where it is the only one of it")
    replay.add_argument("--version", type=int, help="left out: the newest, drafts included")
    replay.add_argument(
        "--from", dest="from_", type=instant, metavar="TIME", help="left out: seven days ago"
    )
    replay.add_argument("--to", type=instant, metavar="TIME", help="not part of it; left out: now")
    for each in (explain, replay):
        each.add_argument("--json", action="store_true", help="for machines")
    policy_steps.add(verbs)


def run(args: argparse.Namespace) -> int:
    from gateway.commands.names import UnknownNameError
    from gateway.commands.remote import Remote, RemoteError

    verbs = {"explain": (_explain, _show_decision), "replay": (_replay, _show_difference)}
    work, show = verbs.get(args.verb, (policy_steps.take, policy_steps.show))
    try:
        with Remote.from_env() as remote:
            told = work(args, remote)
    except (RemoteError, UnknownNameError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    print(json.dumps(told) if args.json else "\n".join(show(told)))
    return 0


def _explain(args: argparse.Namespace, remote: Any) -> dict[str, Any]:
    from gateway.commands.key import key_id

    body = {
        "key_id": key_id(args.key, remote),
        "model": args.model,
        "input_tokens": args.input_tokens,
        "max_tokens": args.max_tokens,
        "stream": args.stream,
        "service_tier": args.service_tier,
    }
    return dict(remote.call("POST", "/policies/explain", body).json())


def _replay(args: argparse.Namespace, remote: Any) -> dict[str, Any]:
    body = {"policy_id": policy_id(args.policy, remote)}
    given = {"version": args.version, "from": args.from_, "to": args.to}
    body |= {name: value for name, value in given.items() if value is not None}
    with _waiting("replaying", quiet=args.json):
        answer = remote.call("POST", "/policies/replay", body, within_s=_REPLAY_WITHIN_S)
    return dict(answer.json()) | ({} if args.json else {"names": _names(remote)})


def _names(remote: Any) -> dict[str, str]:
    """Of teams and backends, as far as the admin token sees them."""
    from gateway.commands.remote import RemoteError

    found: dict[str, str] = {}
    for noun in ("teams", "backends"):
        with suppress(RemoteError):
            found |= {each["id"]: each["name"] for each in remote.all(noun)}
    return found


@contextmanager
def _waiting(what: str, *, quiet: bool) -> Iterator[None]:
    """Says for how long, on a terminal, until the block ends."""
    over = threading.Event()

    def tell() -> None:
        for seconds in itertools.count(1):
            if over.wait(_TOLD_EVERY_S):
                break
            sys.stderr.write(f"\r{what}, {seconds} s ")
            sys.stderr.flush()
        sys.stderr.write("\r\x1b[K")

    if quiet or not sys.stderr.isatty():
        yield
        return
    teller = threading.Thread(target=tell)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _show_decision(told: dict[str, Any]) -> Iterator[str]:
    refusal = told["refusal"]
    yield f"{told['decision']}" + (f": {refusal['code']}, {refusal['message']}" if refusal else "")
    if not told["live"]["known"]:
        yield (
            f"  what backends are doing is unknown ({told['live']['why_not']}): judged as if none "
            "had been tried"
        )
    for each in told["candidates"]:
        place = (
            "choice " + str(each["attempt"] + 1)
            if each["attempt"] is not None
            else ("not eligible" if each["reasons"] else "not tried")
        )
        backend = each.get("backend") or each["backend_id"]
        yield f"  {backend}/{each['upstream_model']} ({each['region']}): {place}"
        if told["live"]["known"]:
            yield f"      seen: {_seen(each)}"
        if each.get("trial"):
            yield f"      circuit breaker {each['trial']}"
        for reason in each["reasons"]:
            yield f"      {reason}"
    yield from _show_hedge(told)
    yield from _show_shadow(told)
    set_by = {name: each for name, each in told.get("policy", {}).items() if each["set_by"]}
    if set_by:
        yield "policy:"
        for name, each in sorted(set_by.items()):
            yield f"  {name} = {json.dumps(each['value'])}   (set by {each['set_by']})"


def _show_hedge(told: dict[str, Any]) -> Iterator[str]:
    """Who would be asked beside a slow first one, where a policy says after how long."""
    hedge = told.get("hedge")
    if hedge is None or hedge["after_ms"] is None or told["decision"] != "serve":
        return
    if hedge["to"] is None:
        yield f"hedge: none, for {hedge['why_not']}"
        return
    to = (
        f"{hedge['to'].get('backend') or hedge['to']['backend_id']}/{hedge['to']['upstream_model']}"
    )
    yield f"hedge: {to}, where the first is silent for {hedge['after_ms']} ms"


def _show_shadow(told: dict[str, Any]) -> Iterator[str]:
    """Whether it would be sent a second time, and why not."""
    shadow, why_not = told.get("shadow"), told.get("no_shadow_because")
    if why_not is not None:
        yield f"shadow: none, for {why_not}"
    if shadow is None:
        return
    if told["decision"] != "serve":
        yield "shadow: none, for the request itself would be refused"
        return
    refusal, to = shadow["refusal"], f"to {shadow['model']} (experiment {shadow['experiment']})"
    if refusal:
        yield f"shadow: would not be sent {to}: {refusal['code']}, {refusal['message']}"
        return
    (first, *_) = shadow["attempts"]
    where = f"{first.get('backend') or first['backend_id']}/{first['upstream_model']}"
    yield f"shadow: would be sent {to}, to {where}, paid by key {shadow['payer']['key']}"


def _seen(each: dict[str, Any]) -> str:
    """What workers see of a candidate now."""
    if each["breaker"] is None:
        return "not tried of late"
    said = [
        f"{name} p95 {each[field]} ms"
        for name, field in (
            ("TTFT", "ttft_p95_ms"), ("TPOT", "tpot_p95_ms"), ("whole", "total_p95_ms")
        )
        if each[field] is not None
    ]  # fmt: skip
    said.append(f"{each['samples']} first tokens in the last minute")
    said.append(f"{each['in_flight']} in flight")
    if each["share_permille"] == 0:
        said.append("ejected: slower or worse than its peers")
    return ", ".join(said)


def _show_difference(told: dict[str, Any]) -> Iterator[str]:
    decisions, changed = told["decisions"], told["changed"]
    yield f"version {told['version']}, {told['from']} to {told['to']}"
    share = f" ({100 * changed / decisions:.1f} %)" if decisions else ""
    yield f"{decisions} decisions, {changed} would have been others{share}"
    if told["unreadable"]:
        yield f"{told['unreadable']} could not be made again: what they refer to is gone"
    if told["not_admitted"]:
        yield f"{told['not_admitted']} of them no budget or limit let in: they count for no money"
    if told["tokens_expected"]:
        yield f"{told['tokens_expected']} of them have no usage: expected tokens stand in"
    if not decisions:
        return
    yield ""
    yield from _table(("", "then", "with it", "difference"), _figures(told))
    yield from _section(
        "where",
        [
            (_place(m["from"], told["names"]), _place(m["to"], told["names"]), str(m["decisions"]))
            for m in told["moves"][:_MOST_MOVES]
        ],
        ("then", "with it", "decisions"),
    )
    yield from _section(
        "teams and models",
        [_group(each, told["names"]) for each in told["groups"] if each["changed"]],
        ("team", "model", "decisions", "changed", "refused", "cost", "charge"),
    )


def _figures(told: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    before, after = told["before"], told["after"]
    refused = (before["refused"], after["refused"])
    yield ("refused", *map(str, refused), f"{refused[1] - refused[0]:+d}")
    for name in ("cost", "charge"):
        was, now = Decimal(before[name]), Decimal(after[name])
        yield f"{name}, {told['currency']}", _money(was), _money(now), _money(now - was, "+")
    speeds = [told["latency"][side] for side in ("before", "after")]
    medians = [speed["ttft_p95_ms"]["median"] for speed in speeds]
    said = ["unknown" if each is None else f"{each}" for each in medians]
    yield ("TTFT p95, ms (median)", *said, _less(medians))
    unknown = [str(speed["unknown"]) for speed in speeds]
    yield ("  without samples", *unknown, "")
    for kind in ("region", "jurisdiction"):
        for each in told[f"{kind}s"]:
            moved = each["after"] - each["before"]
            yield f"{kind} {each[kind]}", str(each["before"]), str(each["after"]), f"{moved:+d}"


def _less(medians: Sequence[int | None]) -> str:
    was, now = medians
    return "" if was is None or now is None else f"{now - was:+d}"


def _place(told: str, names: Mapping[str, str]) -> str:
    """`backend/model +1`, with the backend's name for its id; a refusal as it is."""
    backend_id, slash, rest = told.partition("/")
    return f"{names.get(backend_id, backend_id)}{slash}{rest}"


def _money(amount: Decimal, sign: str = "") -> str:
    """Without the zeros that say nothing."""
    return f"{amount.normalize():{sign}f}" if amount else "0"


def _group(each: dict[str, Any], names: Mapping[str, str]) -> tuple[str, ...]:
    before, after = each["before"], each["after"]
    return (
        names.get(each["team_id"], each["team_id"]),
        each["model"],
        str(each["decisions"]),
        str(each["changed"]),
        f"{after['refused'] - before['refused']:+d}",
        _money(Decimal(after["cost"]) - Decimal(before["cost"]), "+"),
        _money(Decimal(after["charge"]) - Decimal(before["charge"]), "+"),
    )


def _section(title: str, rows: Sequence[tuple[str, ...]], heads: tuple[str, ...]) -> Iterator[str]:
    if rows:
        yield ""
        yield f"{title}:"
        yield from _table(heads, rows)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = [heads, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        yield "  " + "  ".join(cells).rstrip()
