"""`meterhouse prices`: what is charged and paid by the million tokens; imported as drafts, held
against a second source, approved.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from billing.service_tiers import ServiceTier
from gateway.commands import times
from gateway.program import typed

TIERS: Final = tuple(tier.value for tier in ServiceTier)


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("prices", help="prices: listed, imported, approved")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the prices there are, drafts too")
    listing.add_argument("--book", choices=("charge", "cost"))
    listing.add_argument("--model", help="that clients ask for")
    listing.add_argument("--tenant", help="of its contract; name or id")
    listing.add_argument("--backend", help="what it costs; name or id")
    listing.add_argument("--tier", dest="service_tier", choices=TIERS)
    listing.add_argument("--drafts", action="store_true", help="only what is not approved yet")
    bring = verbs.add_parser(
        "import",
        help="draft a model's prices from the catalogue package",
        description="From genai-prices as it is installed: nothing is asked of the network. Each "
        "draft names the package's version and the digest of its data.",
    )
    bring.add_argument("model", help="as the catalogue calls it")
    bring.add_argument("--provider", help="where several have a model of the name")
    bring.add_argument("--as", dest="as_model", metavar="MODEL", help="what clients ask for")
    bring.add_argument("--tenant", help="as its contract price; name or id")
    bring.add_argument("--backend", help="as what this backend costs us; name or id")
    bring.add_argument("--upstream-model", metavar="MODEL", help="with --backend: what it serves")
    bring.add_argument(
        "--tier", dest="service_tiers", action="append", choices=TIERS,
        help="instead of the standard one; may be given again",
    )  # fmt: skip
    bring.add_argument(
        "--from", dest="effective_from", type=times.instant, metavar="TIME", help=times.HELP
    )
    bring.add_argument(
        "--cross-check", type=Path, metavar="FILE",
        help="a second source: LiteLLM's map (.json), or CSV with the columns model, meter and "
        "amount_per_million, and service_tier where it has any",
    )  # fmt: skip
    bring.add_argument("--cross-check-model", metavar="MODEL", help="as that file calls it")
    approve = verbs.add_parser("approve", help="put drafts in force; odd ones: somebody else")
    approve.add_argument("drafts", nargs="+", metavar="ID")
    for each in (listing, bring, approve):
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.names import UnknownNameError
    from gateway.commands.remote import Remote, RemoteError
    from gateway.commands.second_source import SecondSourceError

    verbs = {"list": _list, "import": _import, "approve": _approve}
    try:
        with Remote.from_env() as remote:
            verbs[args.verb](args, remote)
    except BrokenPipeError:
        raise  # nobody reads on; that is no failure to tell of
    except (RemoteError, UnknownNameError, SecondSourceError, OSError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    return 0


def _list(args: argparse.Namespace, remote: Any) -> None:
    asked = {name: getattr(args, name) for name in ("book", "model", "service_tier")}
    asked |= _named(args, remote)
    asked |= {"state": "draft"} if args.drafts else {}
    given = {name: value for name, value in asked.items() if value}
    _tell(args, remote, list(remote.all("prices", given)))


def _import(args: argparse.Namespace, remote: Any) -> None:
    from gateway.commands.second_source import read

    asked: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("model", "provider", "as_model", "upstream_model", "effective_from")
    }
    asked["service_tiers"] = args.service_tiers and list(dict.fromkeys(args.service_tiers))
    asked |= {"book": "charge" if args.backend is None else "cost"} | _named(args, remote)
    if args.cross_check is not None:
        asked["cross_check"] = read(args.cross_check, args.cross_check_model or args.model)
    given = {name: value for name, value in asked.items() if value is not None}
    told = remote.call("POST", "/prices/import", given).json()
    if args.json:
        print(json.dumps(told))
        return
    print(f"from {told['source']}")
    _tell(args, remote, told["items"])
    for note in told["notes"]:  # in the words of who types, not of who posts
        print(note.replace("name it in service_tiers", "name it with --tier"), file=sys.stderr)
    ids = " ".join(each["id"] for each in told["items"])
    print(f"{typed(f'prices approve {ids}')} puts them in force", file=sys.stderr)


def _approve(args: argparse.Namespace, remote: Any) -> None:
    """One after the other: what is in force by then stays."""
    done = [remote.call("POST", f"/prices/{each}/approve").json() for each in args.drafts]
    _tell(args, remote, done)


def _named(args: argparse.Namespace, remote: Any) -> dict[str, str]:
    from gateway.commands.names import Names

    found = {}
    for kind in ("tenant", "backend"):
        written = getattr(args, kind)
        if written is not None:
            known = Names({kind: list(remote.all(f"{kind}s"))})
            found[f"{kind}_id"] = (
                known.tenant(written) if kind == "tenant" else known.backend(written)
            )
    return found


def _tell(args: argparse.Namespace, remote: Any, found: list[dict[str, Any]]) -> None:
    if args.json:
        print(json.dumps(found))
        return
    names = {
        each["id"]: each["name"] for noun in ("tenants", "backends") for each in remote.all(noun)
    }
    for each in found:
        whose = each["model"] or f"{names.get(each['backend_id'], each['backend_id'])}"
        if each["upstream_model"]:
            whose += f"/{each['upstream_model']}"
        if each["tenant_id"]:
            whose += f" for {names.get(each['tenant_id'], each['tenant_id'])}"
        tier = "" if each["service_tier"] == ServiceTier.STANDARD else f" {each['service_tier']}"
        amount = f"{each['amount_per_million']} {each['currency']}"
        told = f"{each['id']}  {each['book']}  {whose}  {each['meter']}{tier}  {amount}"
        print(f"{told}  from {each['effective_from']}  {each['state']}  {each['source']}")
        for warning in each["warnings"]:
            print(f"  {warning}", file=sys.stderr)
