"""`meterhouse key`: create, rotate and revoke application keys. A secret is printed once."""

import argparse
import json
import sys
from typing import Any


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("key", help="create, rotate or revoke application keys")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make a key; its secret is printed this once")
    create.add_argument("--team", required=True, help="the team's name or id")
    create.add_argument("--tenant", help="the tenant's name, where two have a team of that name")
    create.add_argument("--name", required=True, help="the app")
    create.add_argument("--expires-at", metavar="TIME", help="such as 2027-01-01T00:00:00Z")
    create.add_argument("--model", action="append", dest="models", help="only this model; repeat")
    create.add_argument("--cidr", action="append", dest="cidrs", help="only from here; repeat")
    rotate = verbs.add_parser("rotate", help="give a key a new secret")
    rotate.add_argument(
        "--overlap-seconds", type=int, default=86_400, help="how long the old secret lives on"
    )
    revoke = verbs.add_parser("revoke", help="end a key at once, for ever")
    for each in (rotate, revoke):
        each.add_argument("key", help="id, or tenant/team/name")
    for each in (create, rotate, revoke):
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.names import UnknownNameError
    from gateway.commands.remote import Remote, RemoteError

    verbs = {"create": _create, "rotate": _rotate, "revoke": _revoke}
    try:
        with Remote.from_env() as remote:
            view = verbs[args.verb](args, remote)
    except (RemoteError, UnknownNameError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(view))
    elif "secret" in view:
        print(view["secret"])
        print(f"{view['name']} is {view['id']}; the secret is not shown again", file=sys.stderr)
    else:
        print(f"{view['name']} ({view['id']}) is revoked")
    return 0


def _create(args: argparse.Namespace, remote: Any) -> dict[str, Any]:
    body = {
        "team_id": _names(remote).team(args.team, args.tenant),
        "name": args.name,
        "expires_at": args.expires_at,
        "scopes": {"models": args.models, "cidrs": args.cidrs},
    }
    return dict(remote.call("POST", "/keys", body).json())


def _rotate(args: argparse.Namespace, remote: Any) -> dict[str, Any]:
    body = {"overlap_seconds": args.overlap_seconds}
    path = f"/keys/{key_id(args.key, remote)}/rotate"
    return dict(remote.call("POST", path, body).json())


def _revoke(args: argparse.Namespace, remote: Any) -> dict[str, Any]:
    path = f"/keys/{key_id(args.key, remote)}/revoke"
    return dict(remote.call("POST", path).json())


def key_id(written: str, remote: Any) -> str:
    """Of an id, or of tenant/team/name. To whom no tenant is shown, the team's name is enough: all
    that is in sight is one tenant's.
    """
    from gateway.commands.names import UnknownNameError

    tenant, _, rest = written.partition("/")
    team, _, name = rest.partition("/")
    names = _names(remote)
    if not name:
        return str(names.key(written, None, None))
    try:
        return str(names.key(name, team, tenant if names.sees("tenant") else None))
    except UnknownNameError as fault:
        raise UnknownNameError(
            f"{fault} that this admin token sees; the key's id may be given as well"
        ) from None


def _names(remote: Any) -> Any:
    from gateway.commands.names import Names

    nouns = {"tenant": "tenants", "team": "teams", "key": "keys"}
    return Names({kind: list(remote.all(noun)) for kind, noun in nouns.items()})
