"""A provider's bill as a table: read from CSV, added up by day, model and meter. Exact, no floats.

Columns, in any order: `date` (2026-10-14, the provider's UTC day), `model` (as the provider names
it), `meter`, `quantity` (tokens), `amount`, `currency`. Further columns are read past, and tell
lines apart: a line that equals an earlier one in every column is counted as repeated. Meters are
ours; what is billed and counts no tokens (searches, storage, credits) has the meter `other`.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Final

import msgspec

from billing.meters import METERS
from billing.money import minor_exponent, parse_picos

COLUMNS: Final = ("date", "model", "meter", "quantity", "amount", "currency")
OTHER: Final = "other"
BILLED_METERS: Final = (*(meter.value for meter in METERS), OTHER)
MAX_QUANTITY: Final = 10**18 - 1
_QUANTITY: Final = re.compile(r"-?[0-9]{1,18}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MODEL: Final = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


class BillLine(msgspec.Struct, frozen=True, order=True):
    """What was billed of one day, model and meter. Credits are negative."""

    day: str
    model: str
    meter: str
    quantity: int
    amount_picos: int
    lines: int = 1  # of the file
    repeated_quantity: int = 0  # of lines that stand in the file more than once
    repeated_picos: int = 0


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """One file. `decimals`: of its finest amount; nothing in it is said more exactly."""

    currency: str
    decimals: int
    rows: int
    lines: tuple[BillLine, ...]  # one a day, model and meter, in their order


class BillError(ValueError):
    """The file cannot be read as a bill. The message names the line and what to write."""


def read(text: str, names: Mapping[str, str] | None = None) -> Bill:
    """The bill in a CSV file. `names`: what the file calls a column of ours, where it differs.
    BillError for the first line that is unfit: nothing of a bill is left out silently.
    """
    rows = csv.reader(text.removeprefix("\ufeff").splitlines(), strict=True)
    found = _places(next(rows, []), names or {})
    sums: dict[tuple[str, str, str], BillLine] = {}
    seen: set[tuple[str, ...]] = set()
    currencies: set[str] = set()
    decimals = count = 0
    try:
        for cells in rows:
            if not any(cells):
                continue
            line, currency, fine = _line(cells, found, rows.line_num)
            count, decimals = count + 1, max(decimals, fine)
            currencies.add(currency)
            if len(currencies) > 1:
                raise BillError(f"line {rows.line_num}: a bill has one currency, not {currencies}")
            repeated = tuple(cells) in seen
            seen.add(tuple(cells))
            key = (line.day, line.model, line.meter)
            sums[key] = _added(sums.get(key), line, repeated=repeated)
    except csv.Error as fault:
        raise BillError(f"line {rows.line_num}: {fault}") from fault
    if not sums:
        raise BillError(f"there is no line under the header; the columns are {', '.join(COLUMNS)}")
    return Bill(
        currency=currencies.pop(), decimals=decimals, rows=count, lines=tuple(sorted(sums.values()))
    )


def check(line: BillLine) -> None:
    """BillError for a line that no file can have come to."""
    if line.meter not in BILLED_METERS:
        raise BillError(f"{line.meter!r:.40} is no meter; write one of {', '.join(BILLED_METERS)}")
    if _MODEL.fullmatch(line.model) is None:
        remedy = "; write what it is for, such as storage" if line.meter == OTHER else ""
        raise BillError(f"{line.model!r:.60} is no name of a model{remedy}")
    if not _is_day(line.day):
        raise BillError(f"{line.day!r:.40} is no date; write it as 2026-10-14")
    if abs(line.quantity) > MAX_QUANTITY:
        raise BillError(f"{line.quantity} is beyond what can be counted")


def _is_day(text: str) -> bool:
    try:
        return _DAY.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _places(header: list[str], names: Mapping[str, str]) -> dict[str, int]:
    """Where our columns stand."""
    theirs = [cell.strip() for cell in header]
    wanted = {column: names.get(column, column) for column in COLUMNS}
    missing = [name for name in wanted.values() if theirs.count(name) != 1]
    if missing:
        raise BillError(
            f"line 1: the header needs {', '.join(missing)} once each, and has "
            f"{', '.join(theirs)!r:.200}"
        )
    return {column: theirs.index(name) for column, name in wanted.items()}


def _line(cells: list[str], found: Mapping[str, int], number: int) -> tuple[BillLine, str, int]:
    try:
        day, model, meter, quantity, amount, currency = _cells(cells, found)
        if _QUANTITY.fullmatch(quantity) is None:
            raise BillError(f"{quantity!r:.40} is no quantity; write whole tokens")
        minor_exponent(currency)
        line = BillLine(day, model, meter, int(quantity), parse_picos(amount))
        check(line)
    except ValueError as fault:
        raise BillError(f"line {number}: {fault}") from fault
    return line, currency, len(amount.partition(".")[2])


def _cells(cells: list[str], found: Mapping[str, int]) -> Iterator[str]:
    if len(cells) <= max(found.values()):
        raise BillError(f"{len(cells)} cells, fewer than the header has")
    return (cells[found[column]].strip() for column in COLUMNS)


def _added(before: BillLine | None, line: BillLine, *, repeated: bool) -> BillLine:
    more = (line.quantity, line.amount_picos) if repeated else (0, 0)
    sums = (line.quantity, line.amount_picos, 1, *more)
    if before is not None:
        told = msgspec.structs.astuple(before)[3:]
        sums = tuple(a + b for a, b in zip(told, sums, strict=True))
    return BillLine(line.day, line.model, line.meter, *sums)
