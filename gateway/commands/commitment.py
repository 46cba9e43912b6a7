"""`meterhouse commitment`: what tenants agreed to spend, and what is used and open of it."""

import argparse
import json
import sys
from datetime import date, timedelta
from typing import Any, Final

from gateway.program import typed

_DAY: Final = timedelta(days=1)


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("commitment", help="what tenants agreed to spend")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the commitments there are")
    listing.add_argument("--tenant", help="name or id; all of them by default")
    listing.add_argument("--drafts", action="store_true", help="only what is not approved yet")
    show = verbs.add_parser("show", help="one, and each of its terms as invoices have it")
    create = verbs.add_parser(
        "create",
        help="agree on one; it takes the place of the one before from its first day on",
    )
    create.add_argument("--tenant", required=True, help="name or id")
    create.add_argument("--amount", required=True, help="of a whole term, such as 300.00")
    create.add_argument("--term", required=True, choices=("month", "quarter", "year"))
    create.add_argument("--first-day", required=True, metavar="DAY", help="such as 2026-11-01")
    create.add_argument("--last-day", metavar="DAY", help="until another begins, by default")
    create.add_argument("--prepaid", action="store_true", help="charged when a term begins")
    create.add_argument(
        "--overage-percent", metavar="PERCENT", help="of the price, for usage beyond it; 100"
    )
    create.add_argument(
        "--rollover-percent", metavar="PERCENT", help="of the amount, into the next term; 0"
    )
    create.add_argument("--draft", action="store_true", help="as one that is odd has to be")
    approve = verbs.add_parser("approve", help="put a draft in force: by somebody else, if odd")
    end = verbs.add_parser("end", help="no more terms after the one that runs")
    withdraw = verbs.add_parser("withdraw", help="take back what no invoice was issued by")
    for each in (show, approve, end, withdraw):
        each.add_argument("commitment", help="its id")
    end.add_argument(
        "--first-day",
        metavar="DAY",
        help="of a term, from which on; of the next one",
    )
    for each in (listing, show, create, approve, end, withdraw):
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.names import Names, UnknownNameError
    from gateway.commands.remote import Remote, RemoteError

    verbs = {
        "list": _list,
        "show": _show,
        "create": _create,
        "approve": _approve,
        "end": _end,
        "withdraw": _withdraw,
    }
    try:
        with Remote.from_env() as remote:
            verbs[args.verb](args, remote, Names({"tenant": list(remote.all("tenants"))}))
    except (RemoteError, UnknownNameError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    return 0


def _list(args: argparse.Namespace, remote: Any, names: Any) -> None:
    asked = {} if args.tenant is None else {"tenant_id": names.tenant(args.tenant)}
    asked |= {"state": "draft"} if args.drafts else {}
    found = list(remote.all("commitments", asked))
    if args.json:
        print(json.dumps(found))
        return
    for each in sorted(found, key=lambda each: (names.name(each["tenant_id"]), each["first_day"])):
        print(_told(each, names))


def _show(args: argparse.Namespace, remote: Any, names: Any) -> None:
    found = remote.call("GET", f"/commitments/{args.commitment}").json()
    if args.json:
        print(json.dumps(found))
        return
    print(_told(found, names))
    for each in found["terms"]:
        figures = ("committed", "charged", "used", "unused", "open", "overage")
        said = "  ".join(f"{name} {each[name]}" for name in figures)
        print(f"  {each['first_day']} to {each['last_day']}  {said}")


def _create(args: argparse.Namespace, remote: Any, names: Any) -> None:
    given = ("amount", "term", "first_day", "last_day", "overage_percent", "rollover_percent")
    body: dict[str, Any] = {name: getattr(args, name) for name in given}
    body = {name: value for name, value in body.items() if value is not None}
    body |= {"tenant_id": names.tenant(args.tenant), "prepaid": args.prepaid}
    body |= {"state": "draft"} if args.draft else {}
    _agreed(args, _posted(remote, body), names)


def _approve(args: argparse.Namespace, remote: Any, names: Any) -> None:
    found = remote.call("POST", f"/commitments/{args.commitment}/approve").json()
    print(json.dumps(found) if args.json else _told(found, names))


def _end(args: argparse.Namespace, remote: Any, names: Any) -> None:
    """By a commitment to nothing, from the first day on that no term has begun by."""
    found = remote.call("GET", f"/commitments/{args.commitment}").json()
    body = {
        "tenant_id": found["tenant_id"],
        "amount": "0",
        "term": found["term"],
        "first_day": args.first_day or _next_term(found),
    }
    _agreed(args, _posted(remote, body), names)


def _next_term(found: dict[str, Any]) -> str:
    from gateway.commands.remote import RemoteError

    if not found["terms"]:
        raise RemoteError(
            f"{found['id']} has no term that began: {typed('commitment withdraw')} takes back "
            "what is still to come"
        )
    last = found["terms"][-1]["last_day"]
    if last == found["last_day"]:
        raise RemoteError(f"{found['id']} ends with {last} anyway")
    return (date.fromisoformat(last) + _DAY).isoformat()


def _withdraw(args: argparse.Namespace, remote: Any, _names: Any) -> None:
    remote.call("DELETE", f"/commitments/{args.commitment}")
    told = {"id": args.commitment, "withdrawn": True}
    print(json.dumps(told) if args.json else f"{args.commitment} is withdrawn")


def _posted(remote: Any, body: dict[str, Any]) -> dict[str, Any]:
    from gateway.commands.remote import RemoteError

    try:
        return dict(remote.call("POST", "/commitments", body).json())
    except RemoteError as fault:  # in the words of who types, not of who posts
        said = str(fault).replace(
            'POST it with "state": "draft"', typed("commitment create --draft")
        )
        approves = typed("commitment approve ID")
        said = said.replace("POST /admin/v1/commitments/{id}/approve", approves)
        raise RemoteError(said) from fault


def _agreed(args: argparse.Namespace, made: dict[str, Any], names: Any) -> None:
    print(json.dumps(made) if args.json else _told(made, names))
    if made["state"] == "draft" and not args.json:
        print(f"{typed('commitment approve ' + made['id'])} puts it in force", file=sys.stderr)


def _told(each: dict[str, Any], names: Any) -> str:
    said = [each["id"], names.name(each["tenant_id"])]
    said.append(f"{each['amount']} a {each['term']} from {each['first_day']}")
    if each["last_day"] is not None:
        said[-1] += f" to {each['last_day']}"
    said += ["prepaid"] if each["prepaid"] else []
    if each["overage_percent"] != "100":
        said.append(f"overage at {each['overage_percent']} %")
    if each["rollover_percent"] != "0":
        said.append(f"{each['rollover_percent']} % roll over")
    return "  ".join([*said, each["state"]])
