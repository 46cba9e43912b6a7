"""`meterhouse invoice`: list invoices, make a month's draft, export its lines."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("invoice", help="list, draft or export invoices")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the invoices there are")
    listing.add_argument("--tenant", help="name or id; all of them by default")
    draft = verbs.add_parser("draft", help="make or refresh the draft of a month")
    draft.add_argument("--tenant", required=True, help="name or id")
    draft.add_argument("--period", required=True, metavar="MONTH", help="such as 2026-11")
    export = verbs.add_parser("export", help="the lines of an invoice, as CSV")
    export.add_argument("invoice", help="its id or number")
    export.add_argument("-o", "--output", metavar="FILE", help="standard output by default")
    for each in (listing, draft):
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.names import UnknownNameError
    from gateway.commands.remote import Remote, RemoteError

    verbs = {"list": _list, "draft": _draft, "export": _export}
    try:
        with Remote.from_env() as remote:
            verbs[args.verb](args, remote)
    except BrokenPipeError:
        raise  # nobody reads on; that is no failure to tell of
    except (RemoteError, UnknownNameError, OSError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    return 0


def _list(args: argparse.Namespace, remote: Any) -> None:
    tenants = {each["id"]: each["name"] for each in remote.all("tenants")}
    wanted = None if args.tenant is None else _tenant_id(args.tenant, remote)
    found = [each for each in remote.all("invoices") if wanted in (None, each["tenant_id"])]
    if args.json:
        print(json.dumps(found))
        return
    for each in found:
        tenant = tenants.get(each["tenant_id"], each["tenant_id"])
        _show(each, tenant)
    if not found:
        print("there are no invoices yet; `meterhouse invoice draft` makes one", file=sys.stderr)


def _draft(args: argparse.Namespace, remote: Any) -> None:
    body = {"tenant_id": _tenant_id(args.tenant, remote), "period": args.period}
    made = remote.call("POST", "/invoices", body).json()
    if args.json:
        print(json.dumps(made))
    else:
        _show(made, args.tenant)


def _export(args: argparse.Namespace, remote: Any) -> None:
    """To a file only once it is all there: a broken export leaves what was before."""
    invoice_id = args.invoice
    numbered = [each["id"] for each in remote.all("invoices") if each["number"] == invoice_id]
    path = f"/invoices/{numbered[0] if numbered else invoice_id}/lines.csv"
    lines = remote.call("GET", path).content
    if args.output is None:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
        return
    whole = Path(args.output)
    part = whole.with_name(f"{whole.name}.part")
    part.write_bytes(lines)
    part.replace(whole)
    print(f"{args.output}: {len(lines)} bytes", file=sys.stderr)


def _tenant_id(written: str, remote: Any) -> str:
    from gateway.commands.names import Names

    return Names({"tenant": list(remote.all("tenants"))}).tenant(written)


def _show(invoice: dict[str, Any], tenant: str) -> None:
    number = invoice["number"] or "-"
    total = f"{invoice['total']} {invoice['currency']}"
    print(f"{invoice['id']}  {tenant}  {invoice['period']}  {invoice['status']}  {number}  {total}")
