"""`meterhouse reprice`: a month priced anew, by the prices of now: proposed, then approved."""

import argparse
import json
import sys
from typing import Any, Final

from gateway.program import typed

_WITHIN_S: Final = 600.0  # every request of the month is looked at


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("reprice", help="price a month anew: proposed, then approved")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    propose = verbs.add_parser("propose", help="what it would come to; nothing is booked")
    propose.add_argument("--tenant", required=True, help="name or id")
    propose.add_argument("--period", required=True, metavar="MONTH", help="such as 2026-10")
    propose.add_argument("--model", help="of this model; of all by default")
    listing = verbs.add_parser("list", help="the proposals there are")
    listing.add_argument("--tenant", help="name or id; all of them by default")
    show = verbs.add_parser("show", help="what one comes to by team and model")
    approve = verbs.add_parser("approve", help="book it: by somebody else than who proposed it")
    reject = verbs.add_parser("reject", help="it is kept, and never booked")
    for each in (show, approve, reject):
        each.add_argument("repricing", help="its id")
    for each in (propose, listing, show, approve, reject):
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.names import UnknownNameError
    from gateway.commands.remote import Remote, RemoteError

    verbs = {
        "propose": _propose,
        "list": _list,
        "show": _show,
        "approve": _decide,
        "reject": _decide,
    }
    try:
        with Remote.from_env() as remote:
            verbs[args.verb](args, remote)
    except (RemoteError, UnknownNameError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    return 0


def _propose(args: argparse.Namespace, remote: Any) -> None:
    body = {"tenant_id": _tenant_id(args.tenant, remote), "period": args.period}
    body |= {} if args.model is None else {"model": args.model}
    made = remote.call("POST", "/repricings", body, within_s=_WITHIN_S).json()
    _tell(args, remote, made)
    if not args.json:
        print(f"{typed('reprice approve ' + made['id'])} books it", file=sys.stderr)


def _list(args: argparse.Namespace, remote: Any) -> None:
    asked = {} if args.tenant is None else {"tenant_id": _tenant_id(args.tenant, remote)}
    found = list(remote.all("repricings", asked))
    if args.json:
        print(json.dumps(found))
        return
    tenants = _tenants(remote) if found else {}
    for each in found:
        print(_head(each, tenants))


def _show(args: argparse.Namespace, remote: Any) -> None:
    _tell(args, remote, remote.call("GET", f"/repricings/{args.repricing}").json())


def _decide(args: argparse.Namespace, remote: Any) -> None:
    path = f"/repricings/{args.repricing}/{args.verb}"
    found = remote.call("POST", path, within_s=_WITHIN_S).json()
    print(json.dumps(found) if args.json else _head(found, _tenants(remote)))


def _tell(args: argparse.Namespace, remote: Any, found: dict[str, Any]) -> None:
    lines = remote.call("GET", f"/repricings/{found['id']}/lines").json()["lines"]
    if args.json:
        print(json.dumps(found | {"lines": lines}))
        return
    names = {each["id"]: each["name"] for each in remote.all("teams")}
    print(_head(found, _tenants(remote)))
    for each in lines:
        team = names.get(each["team_id"], each["team_id"])
        said = f"{each['old']} -> {each['new']}: {each['difference']}"
        print(f"  {team}  {each['model']}  {said}  ({_requests(each)})")
    if found["unpriced"]:
        print(f"  {found['unpriced']} requests have no price now and stay as they were charged")
    if (found["old_tiers"], found["new_tiers"]) != ("0", "0"):
        said = f"{found['old_tiers']} before, {found['new_tiers']} after"
        print(f"  by quantity the month's total takes off {said}")


def _tenants(remote: Any) -> dict[str, str]:
    return {each["id"]: each["name"] for each in remote.all("tenants")}


def _head(found: dict[str, Any], tenants: dict[str, str]) -> str:
    model = found["model"] or "every model"
    said = f"{found['old']} -> {found['new']} {found['currency']}: {found['difference']}"
    tenant = tenants.get(found["tenant_id"], found["tenant_id"])
    return f"{found['id']}  {tenant}  {found['period']}  {model}  {found['state']}  {said}"


def _requests(each: dict[str, Any]) -> str:
    return f"{each['corrected']} of {each['requests']} requests change"


def _tenant_id(written: str, remote: Any) -> str:
    from gateway.commands.names import Names

    return Names({"tenant": list(remote.all("tenants"))}).tenant(written)
