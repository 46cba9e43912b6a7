"""`meterhouse rates`: the exchange rates that invoices are made at."""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gateway.program import typed

COLUMNS: Final = ("day", "base", "quote", "rate")
_AT_ONCE: Final = 1_000  # as many as one import takes


class RatesFileError(ValueError):
    """The file is no table of rates. The message names the line."""


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("rates", help="exchange rates that invoices are made at")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the rates there are, and which of a day counts")
    listing.add_argument("--base", metavar="CURRENCY")
    listing.add_argument("--quote", metavar="CURRENCY")
    listing.add_argument("--day", metavar="DAY", help="such as 2026-10-31")
    listing.add_argument("--drafts", action="store_true", help="only what is not approved yet")
    one = verbs.add_parser("set", help="enter one: 1 of BASE is RATE of QUOTE")
    one.add_argument("base", help="such as USD")
    one.add_argument("quote", help="such as EUR")
    one.add_argument("rate", help="such as 0.9137")
    one.add_argument("--day", required=True, metavar="DAY", help="such as 2026-10-31")
    one.add_argument("--draft", action="store_true", help="as one that leaps has to be")
    bring = verbs.add_parser(
        "import",
        help="a CSV file",
        description=f"The columns {', '.join(COLUMNS)}, with a head that says so; others are "
        "ignored. Sent again it adds nothing. What leaps is drafted.",
    )
    bring.add_argument("file", help="the CSV file; - is standard input")
    for each in (one, bring):
        each.add_argument("--source", required=True, help="where it is from, such as ECB")
    approve = verbs.add_parser("approve", help="put a draft in force: by somebody else")
    approve.add_argument("draft", help="its id")
    for each in (listing, one, bring, approve):
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.remote import Remote, RemoteError

    verbs = {"list": _list, "set": _set, "import": _import, "approve": _approve}
    try:
        with Remote.from_env() as remote:
            verbs[args.verb](args, remote)
    except BrokenPipeError:
        raise  # nobody reads on; that is no failure to tell of
    except (RemoteError, RatesFileError, OSError, UnicodeDecodeError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    return 0


def _list(args: argparse.Namespace, remote: Any) -> None:
    asked = {name: getattr(args, name) for name in ("base", "quote", "day")}
    asked |= {"state": "draft"} if args.drafts else {}
    given = {name: value for name, value in asked.items() if value}
    found = list(remote.all("exchange-rates", given))
    if args.json:
        print(json.dumps(found))
        return
    for each in sorted(found, key=lambda each: (each["base"], each["quote"], each["day"])):
        print(_told(each))


def _set(args: argparse.Namespace, remote: Any) -> None:
    from gateway.commands.remote import RemoteError

    body = {name: getattr(args, name) for name in ("base", "quote", "rate", "day", "source")}
    body |= {"state": "draft"} if args.draft else {}
    try:
        made = remote.call("POST", "/exchange-rates", body).json()
    except RemoteError as fault:  # in the words of who types, not of who posts
        said = str(fault).replace('POST it with "state": "draft"', "enter it with --draft")
        said = said.replace("POST /admin/v1/exchange-rates/{id}/approve", typed("rates approve ID"))
        raise RemoteError(said) from fault
    print(json.dumps(made) if args.json else _told(made))
    if made["state"] == "draft" and not args.json:
        print(f"a colleague's {typed('rates approve ' + made['id'])} puts it in force",
              file=sys.stderr)  # fmt: skip


def _import(args: argparse.Namespace, remote: Any) -> None:
    """Each thousand as a whole or not at all; none, where the file has a fault."""
    lines = sys.stdin if args.file == "-" else Path(args.file).read_text().splitlines()
    rates = list(_rates(args.file, lines))
    told: dict[str, Any] = {"added": 0, "known": 0, "drafts": [], "notes": []}
    for start in range(0, len(rates), _AT_ONCE):
        body = {"source": args.source, "rates": rates[start : start + _AT_ONCE]}
        found = remote.call("POST", "/exchange-rates/import", body, within_s=600.0).json()
        told = {name: value + found[name] for name, value in told.items()}
    if args.json:
        print(json.dumps(told))
        return
    print(f"{told['added']} added, {told['known']} known already, {len(told['drafts'])} drafted")
    for note in told["notes"]:
        print(note, file=sys.stderr)


def _rates(file: str, lines: Any) -> Iterator[dict[str, str]]:
    table = csv.DictReader(lines, strict=True)
    try:
        missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise RatesFileError(f"{file} has no column {', '.join(missing)}")
        for row in table:
            found = {name: (row[name] or "").strip() for name in COLUMNS}
            empty = [name for name, value in found.items() if not value]
            if empty:
                raise RatesFileError(f"{file}, line {table.line_num}: no {', '.join(empty)}")
            yield found
    except csv.Error as fault:
        raise RatesFileError(f"{file}, line {table.line_num}: {fault}") from fault


def _approve(args: argparse.Namespace, remote: Any) -> None:
    found = remote.call("POST", f"/exchange-rates/{args.draft}/approve").json()
    print(json.dumps(found) if args.json else _told(found))


def _told(each: dict[str, Any]) -> str:
    stands = "counts" if each["counts"] else each["state"]
    if stands == "approved":
        stands = "replaced"
    rate = f"1 {each['base']} = {each['rate']} {each['quote']}"
    return f"{each['id']}  {each['day']}  {rate}  {each['source']}  {stands}"
