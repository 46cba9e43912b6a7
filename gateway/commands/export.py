"""`meterhouse export`: the configuration as documents that `apply` takes, without secrets."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("export", help="print the configuration as apply documents")
    parser.add_argument("--json", action="store_true", help="one JSON array instead of YAML")


def run(args: argparse.Namespace) -> int:
    from gateway.commands import documents
    from gateway.commands.remote import Remote, RemoteError

    try:
        with Remote.from_env() as remote:
            found = list(exported(remote))
    except RemoteError as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    print(json.dumps(found) if args.json else documents.write(found), end="\n" if args.json else "")
    return 0


_OVER = ("expired", "revoked")  # grants that nobody can make again


def exported(remote: Any) -> Iterator[dict[str, Any]]:
    """Documents in the order in which `apply` takes them. Revoked keys are history: they and what
    is attached to them are left out, and so are grants that are over. Prices that follow from
    what a backend costs go with its `tco`.
    """
    from gateway.commands.documents import KINDS, NOUNS
    from gateway.commands.names import Names
    from gateway.commands.pricing import follows
    from gateway.commands.prune import revoked
    from gateway.commands.standing import holder

    holder(remote)
    there = {kind: list(remote.all(NOUNS[kind])) for kind in KINDS}
    names = Names(there)
    for kind in KINDS:
        for view in there[kind]:
            told = view.get("state") in _OVER or (kind == "price" and follows(view))
            if not told and not revoked(kind, view, there):
                yield {"kind": kind} | _document(kind, view, names, remote)


def _document(kind: str, view: dict[str, Any], names: Any, remote: Any) -> dict[str, Any]:
    from gateway.commands import kinds

    activate = {}
    if kind == "policy" and view["active_version"] is not None:
        activate = {"activate": True}
        path = f"/policies/{view['id']}"
        view = remote.call("GET", path, params={"version": view["active_version"]}).json()
    full = kinds.shown(kind, view)
    if kind == "policy":
        ((scope_kind, scope_id),) = full.pop("scope").items()
        weights = full.pop("weights", {})
        if known := names.known(weights):
            full["weights"] = {names.name(each): weights[each] for each in known}
        full = kinds.with_payer(full, names.live_key)
        return {
            "name": full.pop("name"), "scope": names.path(scope_kind, scope_id), **full, **activate
        }  # fmt: skip
    return _named(_without_defaults(kind, full), names)


def _without_defaults(kind: str, full: Mapping[str, Any]) -> dict[str, Any]:
    import msgspec

    from gateway.commands import kinds
    from gateway.commands.pricing import APPROVED, DATED

    defaults = {
        field.name: msgspec.to_builtins(field.default)
        for field in msgspec.structs.fields(kinds.BODIES[kind])
        if field.default is not msgspec.NODEFAULT and field.name != "credential"
    }
    if kind in DATED:
        defaults["state"] = APPROVED
    missing = object()
    return {name: value for name, value in full.items() if defaults.get(name, missing) != value}


def _named(fields: dict[str, Any], names: Any) -> dict[str, Any]:
    """Names in the place of ids."""
    named: dict[str, Any] = {}
    for name, value in fields.items():
        match name:
            case "scope":
                ((scope_kind, scope_id),) = value.items()
                named["scope"] = names.path(scope_kind, scope_id)
            case "budget_id":
                budget = names.of(value)
                ((scope_kind, scope_id),) = budget["scope"].items()
                named["scope"] = names.path(scope_kind, scope_id)
                named["period"] = budget["period"]
            case "team_id":
                named |= names.path("team", value)
            case "targets":
                named["targets"] = [
                    {"backend": names.name(each["backend_id"])}
                    | {key: each[key] for key in ("upstream_model", "weight")}
                    for each in value
                ]
            case "tenant_id" | "parent_id" | "backend_id":
                named[name.removesuffix("_id")] = names.name(value)
            case _:
                named[name] = value
    return named
