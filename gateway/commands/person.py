"""`meterhouse person`: somebody who uses a tenant's apps: found, told what is kept, and erased."""

import argparse
import json
import sys
from typing import Any, Final

_WITHIN_S: Final = 300.0  # all that somebody ever asked is added up


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("person", help="end users: find, export, erase")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    find = verbs.add_parser("find", help="the pseudonyms that usage has for somebody")
    export = verbs.add_parser("export", help="every request of somebody, as JSON lines")
    erase = verbs.add_parser("erase", help="what leads to somebody goes; amounts stay")
    for each in (find, export, erase):
        whose = each.add_mutually_exclusive_group(required=True)
        whose.add_argument("--user", help="the name that the app sends; - reads it from stdin")
        whose.add_argument("--pseudonym", help="an `end_user` of a usage row")
    rotate = verbs.add_parser("rotate", help="a new key: other pseudonyms from now on")
    rotate.add_argument(
        "--forget", action="store_true", help="destroy the keys before: erases everybody they knew"
    )
    for each in (find, export, erase, rotate):
        each.add_argument("--tenant", required=True, help="name or id")
    for each in (find, erase, rotate):
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.names import UnknownNameError
    from gateway.commands.remote import Remote, RemoteError

    verbs = {"find": _find, "export": _export, "erase": _erase, "rotate": _rotate}
    try:
        with Remote.from_env() as remote:
            verbs[args.verb](args, remote)
    except (RemoteError, UnknownNameError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    return 0


def _find(args: argparse.Namespace, remote: Any) -> None:
    found = _asked(args, remote, _whose(args))
    if args.json:
        print(json.dumps(found))
        return
    for each in found["end_users"]:
        print(each)
    _tell(found["amounts"])
    if not found["end_users"]:
        print("nothing is kept of anybody by this name", file=sys.stderr)


def _export(args: argparse.Namespace, remote: Any) -> None:
    whose: dict[str, Any] = {**_whose(args), "limit": 200}
    while True:
        page = _asked(args, remote, whose)
        for each in page["items"]:
            print(json.dumps(each))
        if page["next"] is None:
            return
        whose["cursor"] = page["next"]


def _erase(args: argparse.Namespace, remote: Any) -> None:
    found = _asked(args, remote, _whose(args))
    if args.json:
        print(json.dumps(found))
        return
    print(f"{found['erased']} pseudonyms led to this person and do not any more")
    _tell(found["stays"])
    print(found["note"])


def _rotate(args: argparse.Namespace, remote: Any) -> None:
    found = _asked(args, remote, {"forget": args.forget})
    if args.json:
        print(json.dumps(found))
        return
    forgotten = f"; {found['forgotten']} before it are destroyed" if args.forget else ""
    print(f"key version {found['key_version']} is in force{forgotten}")


def _asked(args: argparse.Namespace, remote: Any, body: dict[str, Any]) -> dict[str, Any]:
    from gateway.commands.names import Names

    tenant_id = Names({"tenant": list(remote.all("tenants"))}).tenant(args.tenant)
    path = f"/tenants/{tenant_id}/end-users/{args.verb}"
    answer: dict[str, Any] = remote.call("POST", path, body, within_s=_WITHIN_S).json()
    return answer


def _whose(args: argparse.Namespace) -> dict[str, Any]:
    if args.pseudonym is not None:
        return {"end_user": args.pseudonym}
    if args.user == "-":  # arguments are seen by everybody on the machine
        args.user = sys.stdin.readline().rstrip("\n")
    return {"user": args.user}


def _tell(amounts: list[dict[str, Any]]) -> None:
    for each in amounts:
        print(f"  {each['charge']} {each['currency']} for {each['requests']} requests")
