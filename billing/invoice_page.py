"""An invoice as a page that a person sends on: printable, complete in itself, safe to open.

Amounts are those that add up in minor units; the exact ones are in lines.csv, which the page names
by its hash. Nothing on it is loaded from anywhere.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from billing.exchange import Amounts, Exchange
from billing.invoices import OF_USAGE, InvoiceLine
from billing.money import format_minor, format_picos
from billing.printed import (
    day,
    document,
    facts,
    grouped,
    heading,
    part,
    plain,
    row,
    row_of_words,
    shown_day,
    table,
    table_end,
)
from billing.terms import IssuedTerms, Party

MOST_LINES: Final = 5_000  # beyond them the page would not open; the rest is one row

_DAY: Final = timedelta(days=1)
_NOTICES: Final = {
    "draft": "Draft: not an invoice yet, and its amounts may change",
    "voided": "Voided: nothing is owed on it",
}
METERS: Final = {
    "input": "Input",
    "cache_read": "Cached input",
    "cache_write_5m": "Cache write, 5 min",
    "cache_write_1h": "Cache write, 1 h",
    "output": "Output",
}
_TEXTS: Final = (
    ("Line", 5), ("Cost centre", 10), ("Team", 12), ("App", 11), ("Model", 14), ("Region", 7),
    ("Meter", 9),
)  # fmt: skip
_SUMMARY: Final = (("Cost centre", 35), ("Team", 40), ("Amount", 25))
_NOTES: Final = (("Credit note", 30), ("Reason", 45), ("Amount", 25))
_ESTIMATED: Final = (
    "Estimated: what the backend would have reported is lost, and the tokens are by what was kept "
    "of the request. Such lines can be credited."
)


class Note(msgspec.Struct, frozen=True):
    """A credit note on the invoice; minor units, negative."""

    number: str
    total_minor: int
    reason: str


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """All that is on the page but for the lines. `credits` is the number that a note is on."""

    kind: str  # invoice | credit_note
    status: str
    number: str | None
    terms: IssuedTerms
    currency: str
    period_start_us: int
    period_end_us: int
    total_minor: int
    issued_at_us: int | None = None
    credits: str | None = None
    reason: str | None = None  # of a credit note, or of its being voided
    notes: tuple[Note, ...] = ()
    sha256: str | None = None
    exchange: Exchange | None = None
    remarks: tuple[str, ...] = ()  # what no line says, such as that the month is still running


def page(head: Head, lines: Callable[[], Iterable[InvoiceLine]], style: str) -> Iterator[str]:
    """HTML, part by part: memory grows with the teams, not with the lines, which are asked for
    twice. `style` is the sheet it carries.
    """
    title = f"{_kind(head)} {head.number or 'draft'}"
    running = f"{title}, voided" if head.status == "voided" else title
    yield from document(title, running, style, _body(head, lines, title))


def _body(head: Head, lines: Callable[[], Iterable[InvoiceLine]], title: str) -> Iterator[str]:
    yield from _heading(head, title)
    yield from _summary(head, lines())
    yield from _detail(head, lines())
    yield from _ending(head)


def _kind(head: Head) -> str:
    return "Credit note" if head.kind == "credit_note" else "Invoice"


def _heading(head: Head, title: str) -> Iterator[str]:
    terms = head.terms
    recipient = msgspec.structs.replace(terms.recipient, name=terms.recipient.name or terms.tenant)
    yield "<header>" + heading(title, "Total", _money(head.total_minor, head.currency))
    if head.status in _NOTICES:
        yield f'<p class="notice">{_NOTICES[head.status]}</p>'
    for each in head.remarks:
        yield f'<p class="notice">{plain(each[:1].upper() + each[1:])}</p>'
    yield '<div class="parties">'
    yield from _party("From", terms.issuer)
    yield from _party("To", recipient)
    yield "</div>"
    yield from facts(_facts(head))
    yield "</header>\n"


def _party(word: str, party: Party) -> Iterator[str]:
    said = [party.name, *party.address, *([f"Tax id {party.tax_id}"] if party.tax_id else [])]
    first, *others = [f"<bdi>{plain(each)}</bdi>" for each in said if each] or [""]
    yield f"<address><span>{word}</span><strong>{first}</strong>"
    yield "".join(f"<br>{each}" for each in others) + "</address>"


def _facts(head: Head) -> Iterator[tuple[str, str]]:
    terms = head.terms
    zone = ZoneInfo(terms.timezone)
    first, last = day(head.period_start_us, zone), day(head.period_end_us, zone) - _DAY
    yield "Period", f"{shown_day(first)} to {shown_day(last)} ({terms.timezone})"
    if head.issued_at_us is not None:
        issued = day(head.issued_at_us, zone)
        yield "Issued", shown_day(issued)
        if terms.payment_days is not None and head.kind == "invoice":
            due = shown_day(issued + timedelta(days=terms.payment_days))
            yield "Payable by", f"{due} ({terms.payment_days} days)"
    if terms.purchase_order:
        yield "Purchase order", terms.purchase_order
    if head.credits is not None:
        yield "Credits", f"Invoice {head.credits}"
    if head.reason:
        yield "Reason", head.reason
    if head.exchange is not None:
        yield "Exchange", _exchanged(head.exchange, head.currency)


def _exchanged(exchange: Exchange, currency: str) -> str:
    of = shown_day(date.fromisoformat(exchange.day))
    rate = f"1 {exchange.currency} = {exchange.rate} {currency} ({exchange.source}, {of})"
    if exchange.amount is None:
        return rate
    said = f"{grouped(exchange.amount)} {exchange.currency} at {rate}"
    for number, earlier in sorted(exchange.earlier.items()):
        if earlier != exchange.rate:
            said += f"; what corrects {number} at its own rate of {earlier}"
    return said


def _summary(head: Head, lines: Iterable[InvoiceLine]) -> Iterator[str]:
    """What each cost centre and team owes, before the detail; they add up to the total."""
    sums: dict[tuple[str, str], int] = {}
    for line in lines:
        whose = (line.cost_center, line.team)
        if line.line_kind in {*OF_USAGE, "credit"} and any(whose):
            sums[whose] = sums.get(whose, 0) + line.amount_minor
    rest = head.total_minor - sum(sums.values())
    yield "<h2>By cost centre</h2>" + table(_SUMMARY, 1, "summary")
    for (center, team), minor in sorted(sums.items()):
        yield row((center or "none", team), (_minor(minor, head),))
    if rest:
        yield row(("", "Of no team"), (_minor(rest, head),))
    yield _total(head, 2, 1)


def _detail(head: Head, lines: Iterable[InvoiceLine]) -> Iterator[str]:
    """Numbered as in lines.csv: a line is asked for by its number."""
    columns = (*_TEXTS, ("Tokens", 13), (f"{head.currency} per million", 9), ("Amount", 10))
    yield "<h2>Lines</h2>" + table(columns, 3, "lines")
    shown = (each for each in enumerate(lines, 1) if each[1].line_kind != "rounding")
    section: tuple[int, str | None] = (head.period_start_us, None)
    amounts, estimated = Amounts(head.exchange), False
    for number, line in islice(shown, MOST_LINES):
        estimated = estimated or line.provenance == "estimated"
        begun = (line.period_start_us, line.corrects_invoice)
        if begun != section and line.line_kind != "credit" and line.line_kind not in _OF_TERMS:
            section = begun
            yield part(_section(line, head), len(columns))
        yield _line(str(number), line, head, amounts)
    count = minor = 0
    for _, line in shown:
        count, minor = count + 1, minor + line.amount_minor
    if count:
        words = f"{count:,} more lines, in lines.csv"
        yield row_of_words(words, len(_TEXTS), ("", "", _minor(minor, head)))
    yield _total(head, len(_TEXTS), 3)
    if estimated:
        yield f"<p>{_ESTIMATED}</p>\n"


def _section(line: InvoiceLine, head: Head) -> str:
    zone = ZoneInfo(head.terms.timezone)
    month = day(line.period_start_us, zone).strftime("%B %Y")
    if line.corrects_invoice is None:
        return f"Usage of {month}"
    return f"Usage of {month} that came, or was charged anew, after invoice {line.corrects_invoice}"


def _line(number: str, line: InvoiceLine, head: Head, amounts: Amounts) -> str:
    minor = _minor(line.amount_minor, head)
    payer = (line.cost_center, line.team, line.key, line.model)
    if line.line_kind in OF_USAGE:
        meter = METERS.get(line.meter, line.meter)
        meter += ", beyond the commitment" if line.line_kind == "overage" else ""
        meter += " (estimated)" if line.provenance == "estimated" else ""
        price = amounts.price(line.picos_per_token, line.corrects_invoice)
        what = (number, *payer, line.backend_region, meter)
        return row(what, (f"{line.quantity:,}", price, minor))
    words = "Agreed minimum of the month, beyond its usage"
    if line.line_kind == "credit":
        words = f"Credit on invoice {line.corrects_invoice}"
    if line.line_kind in _OF_TERMS:
        words = _of_term(line, head)
    said = ": ".join((words, *([", ".join(each for each in payer if each)] if any(payer) else [])))
    return row_of_words(said, len(_TEXTS) - 1, ("", "", minor), before=number)


_OF_TERMS: Final = {
    "commitment": "{}",
    "drawdown": "Paid before by the {}",
    "true_up": "Rest of the {}, beyond what was used of it",
    "unused": "Of the {}, unused and expired: {}",
}


def _of_term(line: InvoiceLine, head: Head) -> str:
    zone = ZoneInfo(head.terms.timezone)
    first, last = day(line.period_start_us, zone), day(line.period_end_us, zone) - _DAY
    term = "commitment"
    if line.line_kind != "drawdown":
        term += f" from {shown_day(first)} to {shown_day(last)}"
    currency = head.currency if head.exchange is None else head.exchange.currency
    unused = f"{format_picos(line.commitment_picos or 0)} {currency}"
    words = _OF_TERMS[line.line_kind].format(term, unused)
    return words[0].upper() + words[1:]


def _ending(head: Head) -> Iterator[str]:
    if head.notes:
        left = head.total_minor + sum(note.total_minor for note in head.notes)
        yield "<h2>Credited since</h2>" + table(_NOTES, 1, "summary")
        for note in head.notes:
            yield row((note.number, note.reason), (_minor(note.total_minor, head),))
        yield table_end(2, 1, "Left of this invoice", _money(left, head.currency))
    yield "<footer>"
    if head.terms.tax:
        yield from facts(head.terms.tax.items())
    yield "<p>No tax is computed here: amounts are without tax unless it is stated above.</p>"
    yield (
        "<p>Tokens are charged exactly and the total is rounded once; lines are shown so that they"
        " add up to it.</p>"
    )
    if head.sha256 is not None:
        yield f"<p>SHA-256 of lines.csv, with the exact amounts: <code>{head.sha256}</code></p>"
    yield "</footer>\n"


def _total(head: Head, texts: int, figures: int) -> str:
    return table_end(texts, figures, "Total", _money(head.total_minor, head.currency))


def _minor(minor: int, head: Head) -> str:
    return grouped(format_minor(minor, head.currency))


def _money(minor: int, currency: str) -> str:
    return f"{grouped(format_minor(minor, currency))} {currency}"
