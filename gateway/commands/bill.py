"""`meterhouse bill`: what a provider billed, imported and held against what was metered."""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from gateway.program import program


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("bill", help="import a provider's bill and reconcile it")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    bring = verbs.add_parser(
        "import",
        help="a bill as CSV",
        description="The columns date, model, meter, quantity, amount, currency; meters are "
        "input, cache_read, cache_write_5m, cache_write_1h, output, other.",
    )
    bring.add_argument("file", help="the CSV file")
    bring.add_argument(
        "--backend", action="append", required=True, help="name or id whose attempts it bills"
    )
    bring.add_argument("--period", required=True, metavar="MONTH", help="of UTC, such as 2026-10")
    bring.add_argument("--name", help="what it is called; the file's name by default")
    bring.add_argument(
        "--column", action="append", default=[], metavar="OURS=THEIRS",
        help="what the file calls a column of ours",
    )  # fmt: skip
    listing = verbs.add_parser("list", help="the bills there are")
    held = verbs.add_parser("reconcile", help="every gap, with its causes")
    held.add_argument("bill", help="its id")
    held.add_argument("--csv", action="store_true", help="one line a cause")
    held.add_argument(
        "--most", metavar="AMOUNT", help="status 1 where the whole gap is larger, either way"
    )
    for each in (bring, listing, held):
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from billing.provider_bills import BillError
    from gateway.commands.names import UnknownNameError
    from gateway.commands.remote import Remote, RemoteError

    verbs = {"import": _import, "list": _list, "reconcile": _reconcile}
    try:
        with Remote.from_env() as remote:
            return verbs[args.verb](args, remote) or 0
    except BrokenPipeError:
        raise  # nobody reads on; that is no failure to tell of
    except (RemoteError, UnknownNameError, BillError, OSError, UnicodeDecodeError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1


def _import(args: argparse.Namespace, remote: Any) -> None:
    from billing.money import format_picos
    from billing.provider_bills import read
    from gateway.commands.names import Names

    file = Path(args.file)
    raw = file.read_bytes()
    bill = read(raw.decode(), _columns(args.column))
    names = Names({"backend": list(remote.all("backends"))})
    body = {
        "name": args.name or file.name,
        "backend_ids": [names.backend(each) for each in args.backend],
        "period": args.period,
        "currency": bill.currency,
        "decimals": bill.decimals,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "lines": [
            {
                "date": line.day,
                "model": line.model,
                "meter": line.meter,
                "quantity": line.quantity,
                "amount": format_picos(line.amount_picos),
                "lines": line.lines,
                "repeated_quantity": line.repeated_quantity,
                "repeated_amount": format_picos(line.repeated_picos),
            }
            for line in bill.lines
        ],
    }
    view = remote.call("POST", "/provider-bills", body).json()
    if args.json:
        print(json.dumps(view))
    else:
        _show(view)
        print(f"{program()} bill reconcile {view['id']}", file=sys.stderr)


def _columns(given: list[str]) -> dict[str, str]:
    from billing.provider_bills import COLUMNS, BillError

    names = dict(each.partition("=")[::2] for each in given)
    for ours in names:
        if ours not in COLUMNS:
            raise BillError(f"--column: {ours!r} is none of {', '.join(COLUMNS)}")
    return names


def _list(args: argparse.Namespace, remote: Any) -> None:
    found = list(remote.all("provider-bills"))
    if args.json:
        print(json.dumps(found))
    else:
        for each in found:
            _show(each)


def _reconcile(args: argparse.Namespace, remote: Any) -> int:
    """1 where the gap is larger than it may be."""
    path = f"/provider-bills/{args.bill}/reconciliation"
    found = remote.call("GET", path, within_s=600.0).json()
    if args.csv:
        table = remote.call("GET", path, headers={"accept": "text/csv"}, within_s=600.0)
        sys.stdout.write(table.text)
    elif args.json:
        print(json.dumps(found))
    else:
        _tell(found)
    return int(args.most is not None and _beyond(found["gap"], args.most))


def _beyond(gap: str, most: str) -> bool:
    from billing.money import parse_picos
    from billing.provider_bills import BillError

    try:
        return abs(parse_picos(gap)) > parse_picos(most)
    except ValueError as fault:
        raise BillError(f"--most: {fault}") from fault


def _tell(found: dict[str, Any]) -> None:
    of = found["currency"]
    for day in found["days"]:
        billed, metered = day["billed"], day["metered"]
        print(f"{day['day']}  {day['model']}  billed {billed}, metered {metered}: {day['gap']}")
        for each in day["causes"]:
            said = f"{each['tokens']} {each['meter']} tokens"
            if each["billed_per_million"] is not None:
                said = f"{each['billed_per_million']} a million {each['meter']}"
                said += f", not {each['metered_per_million']}"
            rows = f", {each['rows']} rows" if each["rows"] else ""
            print(f"    {each['cause']}: {each['amount']}  ({said}{rows})")
    share = f" ({found['gap_percent']} %)" if found["gap_percent"] is not None else ""
    print(f"billed {found['billed']} {of}, metered {found['metered']}: {found['gap']}{share}")
    for cause, amount in found["causes"].items():
        print(f"  {cause}: {amount}")
    for currency, cost in found["other_currencies"].items():
        print(
            f"  of tenants in {currency}: {cost} {currency} of cost is booked, in no figure above"
        )


def _show(bill: dict[str, Any]) -> None:
    total = f"{bill['total']} {bill['currency']}"
    print(f"{bill['id']}  {bill['name']}  {bill['period']}  {bill['rows']} rows  {total}")
