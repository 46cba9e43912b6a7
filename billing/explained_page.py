"""The requests behind a line of an invoice, and the rating of one request, as pages to send on.

Every figure stands beside those that it follows from. Amounts are exact, in the currency they were
rated in; what is rounded says so.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from billing.invoice_page import METERS
from billing.invoices import InvoiceLine
from billing.money import format_minor, format_picos
from billing.prices import amount_per_million
from billing.printed import (
    document,
    facts,
    grouped,
    heading,
    row,
    row_of_words,
    shown_time,
    table,
    table_end,
)
from billing.rating import RatedLine
from billing.service_tiers import ServiceTier, tier_of

MOST_REQUESTS: Final = 5_000  # beyond them the page would not open; the rest is one row
CAUSES: Final = {
    "other_steps": "on the lines of the price's other steps",
    "quantity_tiers": "what the month's quantity makes of the price",
    "minimum": "agreed minimum",
    "commitment": "commitment, paid in advance",
    "drawdown": "what the commitment had paid before",
    "overage": "what usage beyond the commitment has for a price",
    "true_up": "rest of the commitment",
    "unused": "what of the commitment expired",
    "credit": "credit",
    "rounding": "rounding",
}

_STEPS: Final = (("", 60), ("Tokens", 18), ("Amount", 22))
_BOOKINGS: Final = (
    ("Admitted", 14), ("Request", 25), ("Team", 13), ("App", 12), ("Model", 13), ("Tokens", 10),
    ("Amount", 13),
)  # fmt: skip
_RATING: Final = (("Meter", 22), ("Price version", 34), ("Tokens", 12), ("Price", 14),
                  ("Amount", 18))  # fmt: skip
_CONTEXT: Final = re.compile(">([0-9]+)")


class Change(msgspec.Struct, frozen=True):
    """What stands between bookings and what is billed, by a cause of CAUSES."""

    cause: str
    quantity: int
    picos: int


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice, or with `line` and its `number` one of its lines. `booked_at_picos`, per token,
    is of a line whose price the month's total decides.
    """

    invoice: str  # such as Invoice INV-000001
    tenant: str
    timezone: str
    currency: str  # of the amounts
    invoice_currency: str
    line: InvoiceLine | None = None
    number: int | None = None
    booked_at_picos: int | None = None
    requests: int
    quantity: int
    amount_picos: int
    changes: tuple[Change, ...] = ()
    billed_picos: int
    total_minor: int = 0  # of the invoice, in its own currency
    adds_up: bool


class Booking(msgspec.Struct, frozen=True, kw_only=True):
    """One booking behind it; negative where an estimate was taken back."""

    at_us: int
    request_id: str
    team: str
    app: str
    model: str
    provenance: str
    quantity: int
    picos: int


class RatedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """`lines` are of an attempt that is charged; `invoice` is the number of what bills it."""

    attempt: int
    winner: bool
    provenance: str
    hold: str
    region: str
    lines: tuple[RatedLine, ...]
    picos: int
    invoice: str | None


class Rated(msgspec.Struct, frozen=True, kw_only=True):
    request_id: str
    tenant: str
    timezone: str
    team: str
    app: str
    model: str
    operation: str
    at_us: int
    currency: str
    attempts: tuple[RatedAttempt, ...]


def requests_page(of: Explained, bookings: Iterable[Booking], style: str) -> Iterator[str]:
    """HTML, part by part: memory does not grow with the bookings."""
    what = of.invoice if of.number is None else f"Line {of.number} of {of.invoice}"
    yield from document(f"{what}: requests", what, style, _of_requests(of, bookings, what))


def rating_page(of: Sequence[Rated], style: str) -> Iterator[str]:
    """One request, or several one after another."""
    one = len(of) == 1
    title = f"Rating of {of[0].request_id if one else f'{len(of):,} requests'}"
    yield from document(title, title, style, _of_ratings(of, title))


def _of_requests(of: Explained, bookings: Iterable[Booking], what: str) -> Iterator[str]:
    yield "<header>" + heading(what, "Billed", _money(of.billed_picos, of))
    if not of.adds_up:
        yield '<p class="notice">This is not what the invoice says: usage was booked since it was '
        yield "drafted, or something is wrong</p>"
    yield from facts(_facts(of))
    yield "</header>\n<h2>From what was booked to what is billed</h2>"
    yield from _arithmetic(of)
    yield "<h2>Requests</h2>"
    yield from _bookings(of, bookings)
    yield "<footer><p>Each request was charged exactly, in its month's price version; nothing is "
    yield "rounded before the invoice's total is, once.</p></footer>\n"


def _facts(of: Explained) -> Iterator[tuple[str, str]]:
    yield "Tenant", of.tenant
    line = of.line
    if line is None:
        if of.invoice_currency != of.currency:
            total = f"{grouped(format_minor(of.total_minor, of.invoice_currency))}"
            yield "Invoice total", f"{total} {of.invoice_currency}, each line at its rate"
        return
    named = (
        ("Cost centre", line.cost_center), ("Team", line.team), ("App", line.key),
        ("Model", line.model), ("Region", line.backend_region),
        ("Meter", METERS.get(line.meter, line.meter)), ("Provenance", line.provenance),
        ("Price version", line.price_version), ("Service tier", _tier(line.price_version)),
        ("Came after", line.corrects_invoice or ""), ("Line id", line.line_id),
    )  # fmt: skip
    yield from ((name, value) for name, value in named if value)
    printed = format_minor(line.amount_minor, of.invoice_currency)
    yield "Printed", f"{grouped(printed)} {of.invoice_currency}, so that all lines add up"


def _arithmetic(of: Explained) -> Iterator[str]:
    line, per_million = of.line, ""
    if line is not None and line.meter:
        at = line.picos_per_token if of.booked_at_picos is None else of.booked_at_picos
        per_million = f" at {amount_per_million(at)} {of.currency} a million"
    yield table(_STEPS, 2, "summary")
    words = f"{_counted(of.requests)}{per_million}"
    yield row((words,), (f"{of.quantity:,}", _exact(of.amount_picos)))
    for each in of.changes:
        tokens = f"{each.quantity:,}" if each.quantity else ""
        yield row((CAUSES.get(each.cause, each.cause),), (tokens, _exact(each.picos)))
    total = "Billed"
    if line is not None and line.meter:
        asked = amount_per_million(line.picos_per_token)
        total = f"The line: {line.quantity:,} tokens at {asked} {of.currency} a million"
    yield table_end(1, 2, total, _money(of.billed_picos, of))


def _bookings(of: Explained, bookings: Iterable[Booking]) -> Iterator[str]:
    zone = ZoneInfo(of.timezone)
    yield table(_BOOKINGS, 2, "lines")
    count = 0
    for each in bookings:
        if count == MOST_REQUESTS:
            break
        count += 1
        guessed = f" ({each.provenance})" if each.provenance == "estimated" else ""
        yield row(
            (shown_time(each.at_us, zone), each.request_id, each.team, each.app,
             f"{each.model}{guessed}"),
            (f"{each.quantity:,}", _exact(each.picos)),
        )  # fmt: skip
    rest = of.requests - count
    if rest > 0:
        yield row_of_words(f"{rest:,} more; the admin API lists them all", 5, ("", ""))
    yield table_end(5, 2, _counted(of.requests), _money(of.amount_picos, of))


def _of_ratings(of: Sequence[Rated], title: str) -> Iterator[str]:
    if len(of) != 1:
        yield f"<h1>{title}</h1>"
    for each in of:
        charged = f"{_exact(sum(one.picos for one in each.attempts))} {each.currency}"
        yield "<header>" + heading(title if len(of) == 1 else each.request_id, "Charged", charged)
        yield from _of_rating(each)
    yield "<footer><p>Tokens times the price that was in force when the request was admitted, "
    yield "exactly: nothing is rounded here. The invoice's total is rounded once.</p></footer>\n"


def _of_rating(of: Rated) -> Iterator[str]:
    named = (
        ("Admitted", shown_time(of.at_us, ZoneInfo(of.timezone))), ("Tenant", of.tenant),
        ("Team", of.team), ("App", of.app), ("Model", of.model), ("Operation", of.operation),
    )  # fmt: skip
    yield from facts((name, value) for name, value in named if value)
    yield "</header>\n"
    for each in of.attempts:
        yield from _attempt(each, of.currency)


def _attempt(of: RatedAttempt, currency: str) -> Iterator[str]:
    yield f"<h2>Attempt {of.attempt}</h2>"
    billed = f"Invoice {of.invoice}" if of.invoice else "on no invoice yet"
    yield from facts(
        (
            ("Charged", "yes" if of.winner else "no: another attempt answered, or none did"),
            ("Tokens by", of.provenance),
            ("Hold", of.hold),
            ("Region", of.region),
            *((("Billed by", billed),) if of.winner else ()),
        )
    )
    if not of.winner:
        return
    yield table(_RATING, 3, "rating")
    for each in of.lines:
        price = f"{amount_per_million(each.picos_per_token)} a million"
        what = (METERS.get(each.meter.value, each.meter.value), _priced(each))
        yield row(what, (f"{each.quantity:,}", price, _exact(each.amount_picos)))
    yield table_end(2, 3, "Charged", f"{_exact(of.picos)} {currency}")


def _priced(line: RatedLine) -> str:
    """The version of a price, and what of it decided."""
    said = [line.version]
    if _tier(line.version):
        said.append(f"service tier {_tier(line.version)}")
    context = _CONTEXT.search(line.version)
    if context is not None:
        said.append(f"of prompts above {int(context[1]):,} tokens")
    if line.list_picos is not None:
        said.append(f"{amount_per_million(line.list_picos)} in the list")
    if line.schedule is not None:
        steps = ", ".join(
            f"{amount_per_million(step.picos_per_token)} above {step.above_tokens:,}"
            for step in line.schedule.steps
        )
        said.append(
            f"{line.schedule.mode} by the month's tokens: {steps}; booked at the dearest, and the "
            "invoice has what the month's total makes of it"
        )
    return "; ".join(said)


def _counted(bookings: int) -> str:
    return f"{bookings:,} booking{'' if bookings == 1 else 's'}"


def _tier(version: str) -> str:
    tier = tier_of(version)
    return "" if tier is ServiceTier.STANDARD else tier.value


def _exact(picos: int) -> str:
    return grouped(format_picos(picos))


def _money(picos: int, of: Explained) -> str:
    return f"{_exact(picos)} {of.currency}"
