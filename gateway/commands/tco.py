"""`meterhouse tco`: what hardware of one's own costs by the hour and by the token, and what if."""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gateway.commands.remote import Remote

_WITHIN_S: Final = 600.0  # every attempt of the month is looked at
_SHORTHANDS: Final = {
    "utilisation": "planned_utilisation",
    "electricity": "electricity_per_kwh",
    "prefill": "prefill_tokens_per_second",
    "decode": "decode_tokens_per_second",
}


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("tco", help="what hardware of one's own costs, and what if")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("box", nargs="?", help="a documented box; none: list them")
    whose.add_argument("--backend", metavar="NAME", help="the profile of a backend, by name or id")
    parser.add_argument(
        "--observed-from", metavar="TIME",
        help="with --backend: what it did since then stands beside; the last day by default",
    )  # fmt: skip
    parser.add_argument(
        "--book", metavar="MONTH",
        help="with --backend: book what the box cost in a month that is over beyond its tokens",
    )  # fmt: skip
    parser.add_argument(
        "--look", metavar="MONTH", help="with --backend: what --book would book, and booked"
    )
    parser.add_argument(
        "--spread", choices=("platform", "busy", "even"), default="platform",
        help="who bears that: the account `idle`, or teams, by busy time or evenly",
    )  # fmt: skip
    whose.add_argument("--file", type=Path, metavar="FILE", help="a profile as JSON")
    parser.add_argument("--utilisation", metavar="SHARE", help="busy hours of all, such as 0.5")
    parser.add_argument("--electricity", metavar="PRICE", help="money a kWh")
    parser.add_argument("--prefill", metavar="RATE", help="input tokens a second, measured")
    parser.add_argument("--decode", metavar="RATE", help="output tokens a second, measured")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="changes",
        help="any other field of the profile; may be given more than once",
    )  # fmt: skip
    hosted = parser.add_argument_group("break-even with a hosted price, per million tokens")
    hosted.add_argument("--hosted-input", metavar="PRICE")
    hosted.add_argument("--hosted-cached", metavar="PRICE", help="of cached input; else as input")
    hosted.add_argument("--hosted-output", metavar="PRICE")
    hosted.add_argument(
        "--request", default="1000,0,300", metavar="IN,CACHED,OUT",
        help="tokens of the usual request; 1000,0,300 by default",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.remote import RemoteError

    try:
        if args.book or args.look:
            told, lines = _booked(args)
        elif args.box is None and args.backend is None and args.file is None:
            told, lines = _boxes()
        else:
            told, lines = _explained(args)
    except (RemoteError, ValueError, OSError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    print(json.dumps(told) if args.json else "\n".join(lines))
    return 0


def _boxes() -> tuple[Any, Iterator[str]]:
    from billing.boxes import AS_OF, BOXES
    from gateway.commands.costs import boxes, boxes_in_words

    return {"as_of": AS_OF, "boxes": boxes(BOXES)}, boxes_in_words(BOXES)


def _explained(args: argparse.Namespace) -> tuple[Any, Iterator[str]]:
    from gateway.commands import costs, observing

    profile = costs.profile(_base(args), _changes(args))
    hosted = {
        "input": args.hosted_input,
        "cache_read": args.hosted_cached,
        "output": args.hosted_output,
    }
    work = costs.work(args.request)
    asked = {meter: price for meter, price in hosted.items() if price is not None}
    told = costs.report(profile, asked, work)
    observed = None if args.backend is None else _observed(args.backend, args.observed_from)
    if observed is None:
        return told, costs.in_words(told)
    told["observed"] = observed
    return told, chain(costs.in_words(told), observing.in_words(observed))


def _base(args: argparse.Namespace) -> dict[str, Any]:
    """The fields to begin with, as the admin API writes them."""
    if args.file is not None:
        found = json.loads(args.file.read_text(encoding="utf-8"), parse_float=str)
        if not isinstance(found, dict):
            raise ValueError(f"{args.file} is not one JSON object with the fields of a profile")
        return found
    if args.backend is None:
        return {"profile": args.box}
    from gateway.commands.remote import Remote

    with Remote.from_env() as remote:
        backend = _backend(remote, args.backend)
    if backend["tco"] is None:
        raise ValueError(f"backend {backend['name']} has no tco; PUT one, or name a box here")
    return dict(backend["tco"])


def _backend(remote: "Remote", named: str) -> dict[str, Any]:
    found = next((b for b in remote.all("backends") if named in (b["id"], b["name"])), None)
    if found is None:
        raise ValueError(f"there is no backend {named!r}")
    return dict(found)


def _observed(named: str, since: str | None) -> dict[str, Any]:
    """What the backend did, as the admin API tells it."""
    from gateway.commands.remote import Remote

    with Remote.from_env() as remote:
        path = f"/backends/{_backend(remote, named)['id']}/efficiency"
        params = {} if since is None else {"from": since}
        return dict(remote.call("GET", path, params=params).json())


def _booked(args: argparse.Namespace) -> tuple[Any, Iterator[str]]:
    from gateway.commands import observing
    from gateway.commands.remote import Remote

    if args.backend is None:
        raise ValueError("--book and --look speak of a backend: name it with --backend")
    with Remote.from_env() as remote:
        path = f"/backends/{_backend(remote, args.backend)['id']}/idle"
        asked = {"period": args.book or args.look, "spread": args.spread}
        if args.book:
            told = remote.call("POST", path, asked, within_s=_WITHIN_S).json()
        else:
            told = remote.call("GET", path, params=asked, within_s=_WITHIN_S).json()
        names = {each["id"]: each["name"] for each in remote.all("teams")}
    return told, observing.idle_in_words(told, names)


def _changes(args: argparse.Namespace) -> dict[str, str]:
    pairs = [each.partition("=") for each in args.changes]
    if any(not equals for _, equals, _ in pairs):
        raise ValueError("--set takes FIELD=VALUE, such as --set capex=250000")
    given = {field: getattr(args, name) for name, field in _SHORTHANDS.items()}
    shorthand = {field: value for field, value in given.items() if value is not None}
    return {name: value for name, _, value in pairs} | shorthand
