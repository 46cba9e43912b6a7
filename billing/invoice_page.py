"""An invoice as a page that a person sends on: printable, complete in itself, safe to open.

Amounts are those that add up in minor units; the exact ones are in lines.csv, which the page names
by its hash. Nothing on it is loaded from anywhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from html import escape
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from billing.exchange import Amounts, Exchange
from billing.invoices import OF_USAGE, InvoiceLine
from billing.money import format_minor, format_picos
from billing.terms import IssuedTerms, Party

MOST_LINES: Final = 5_000  # beyond them the page would not open; the rest is one row

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTICES: Final = {
    "draft": "Draft: not an invoice yet, and its amounts may change",
    "voided": "Voided: nothing is owed on it",
}
_METERS: Final = {
    "input": "Input",
    "cache_read": "Cached input",
    "cache_write_5m": "Cache write, 5 min",
    "cache_write_1h": "Cache write, 1 h",
    "output": "Output",
}
_COLUMNS: Final = ("Cost centre", "Team", "App", "Model", "Region", "Meter")
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
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="content-security-policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>\n"
    )
    yield from _heading(head, title)
    yield from _summary(head, lines())
    yield from _detail(head, lines())
    yield from _ending(head)
    yield "</body></html>\n"


def _kind(head: Head) -> str:
    return "Credit note" if head.kind == "credit_note" else "Invoice"


def _heading(head: Head, title: str) -> Iterator[str]:
    terms = head.terms
    recipient = msgspec.structs.replace(terms.recipient, name=terms.recipient.name or terms.tenant)
    yield f"<header><h1>{escape(title)}</h1>"
    if head.status in _NOTICES:
        yield f'<p class="notice">{_NOTICES[head.status]}</p>'
    for each in head.remarks:
        yield f'<p class="notice">{escape(each[:1].upper() + each[1:])}</p>'
    yield '<div class="parties">'
    yield from _party("From", terms.issuer)
    yield from _party("To", recipient)
    yield "</div><dl>"
    for name, value in _facts(head):
        yield f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>"
    yield "</dl></header>\n"


def _party(word: str, party: Party) -> Iterator[str]:
    said = [party.name, *party.address, *([f"Tax id {party.tax_id}"] if party.tax_id else [])]
    first, *others = [escape(each) for each in said if each] or [""]
    yield f"<address><span>{word}</span><strong>{first}</strong>"
    yield "".join(f"<br>{each}" for each in others) + "</address>"


def _facts(head: Head) -> Iterator[tuple[str, str]]:
    terms = head.terms
    zone = ZoneInfo(terms.timezone)
    first, after = _day(head.period_start_us, zone), _day(head.period_end_us, zone)
    yield "Period", f"{_shown(first)} to {_shown(after - timedelta(days=1))} ({terms.timezone})"
    if head.issued_at_us is not None:
        issued = _day(head.issued_at_us, zone)
        yield "Issued", _shown(issued)
        if terms.payment_days is not None and head.kind == "invoice":
            due = _shown(issued + timedelta(days=terms.payment_days))
            yield "Payable by", f"{due} ({terms.payment_days} days)"
    if terms.purchase_order:
        yield "Purchase order", terms.purchase_order
    if head.credits is not None:
        yield "Credits", f"Invoice {head.credits}"
    if head.reason:
        yield "Reason", head.reason
    if head.exchange is not None:
        yield "Exchange", _exchanged(head.exchange, head.currency)
    yield "Total", _money(head.total_minor, head.currency)


def _exchanged(exchange: Exchange, currency: str) -> str:
    day = _shown(date.fromisoformat(exchange.day))
    rate = f"1 {exchange.currency} = {exchange.rate} {currency} ({exchange.source}, {day})"
    if exchange.amount is None:
        return rate
    return f"{_grouped(exchange.amount)} {exchange.currency} at {rate}"


def _summary(head: Head, lines: Iterable[InvoiceLine]) -> Iterator[str]:
    """What each cost centre and team owes, before the detail; they add up to the total."""
    sums: dict[tuple[str, str], int] = {}
    for line in lines:
        whose = (line.cost_center, line.team)
        if line.line_kind in {*OF_USAGE, "credit"} and any(whose):
            sums[whose] = sums.get(whose, 0) + line.amount_minor
    rest = head.total_minor - sum(sums.values())
    yield '<h2>By cost centre</h2><table class="summary">'
    yield _header(("Cost centre", "Team"), ("Amount",)) + "<tbody>"
    for (center, team), minor in sorted(sums.items()):
        yield _row((center or "none", team), (_minor(minor, head),))
    if rest:
        yield _row(("", "Of no team"), (_minor(rest, head),))
    yield f"</tbody>{_total(head, 2)}</table>\n"


def _detail(head: Head, lines: Iterable[InvoiceLine]) -> Iterator[str]:
    yield "<h2>Lines</h2><table>"
    figures = ("Tokens", f"{escape(head.currency)} per million", "Amount")
    yield _header(_COLUMNS, figures) + "<tbody>"
    shown = iter(line for line in lines if line.line_kind != "rounding")
    section: tuple[int, str | None] = (head.period_start_us, None)
    amounts, estimated = Amounts(head.exchange), False
    for line in islice(shown, MOST_LINES):
        estimated = estimated or line.provenance == "estimated"
        begun = (line.period_start_us, line.corrects_invoice)
        if begun != section and line.line_kind != "credit" and line.line_kind not in _OF_TERMS:
            section = begun
            yield f'<tr><th class="part" colspan="9">{escape(_section(line, head))}</th></tr>'
        yield _line(line, head, amounts)
    count = minor = 0
    for line in shown:
        count, minor = count + 1, minor + line.amount_minor
    if count:
        rest = (f"{count:,} more lines, in lines.csv", *[""] * (len(_COLUMNS) - 1))
        yield _row(rest, ("", "", _minor(minor, head)))
    yield f"</tbody>{_total(head, 8)}</table>\n"
    if estimated:
        yield f"<p>{_ESTIMATED}</p>\n"


def _section(line: InvoiceLine, head: Head) -> str:
    zone = ZoneInfo(head.terms.timezone)
    month = _day(line.period_start_us, zone).strftime("%B %Y")
    if line.corrects_invoice is None:
        return f"Usage of {month}"
    return f"Usage of {month} that came after invoice {line.corrects_invoice}"


def _line(line: InvoiceLine, head: Head, amounts: Amounts) -> str:
    if line.line_kind in OF_USAGE:
        meter = _METERS.get(line.meter, line.meter)
        meter += ", beyond the commitment" if line.line_kind == "overage" else ""
        meter += " (estimated)" if line.provenance == "estimated" else ""
        what = (line.cost_center, line.team, line.key, line.model, line.backend_region, meter)
        price = amounts.price(line.picos_per_token, line.corrects_invoice)
        return _row(what, (f"{line.quantity:,}", price, _minor(line.amount_minor, head)))
    words = "Agreed minimum of the month, beyond its usage"
    if line.line_kind == "credit":
        words = f"Credit on invoice {line.corrects_invoice}"
    if line.line_kind in _OF_TERMS:
        words = _of_term(line, head)
    what = (line.cost_center, line.team, line.key, line.model, "", words)
    return _row(what, ("", "", _minor(line.amount_minor, head)))


_OF_TERMS: Final = {
    "commitment": "{}",
    "drawdown": "Paid before by the {}",
    "true_up": "Rest of the {}, beyond what was used of it",
    "unused": "Of the {}, unused and expired: {}",
}


def _of_term(line: InvoiceLine, head: Head) -> str:
    zone = ZoneInfo(head.terms.timezone)
    first, after = _day(line.period_start_us, zone), _day(line.period_end_us, zone)
    term = "commitment"
    if line.line_kind != "drawdown":
        term += f" from {_shown(first)} to {_shown(after - timedelta(days=1))}"
    currency = head.currency if head.exchange is None else head.exchange.currency
    unused = f"{format_picos(line.commitment_picos or 0)} {currency}"
    words = _OF_TERMS[line.line_kind].format(term, unused)
    return words[0].upper() + words[1:]


def _ending(head: Head) -> Iterator[str]:
    if head.notes:
        left = head.total_minor + sum(note.total_minor for note in head.notes)
        yield '<h2>Credited since</h2><table class="summary">'
        yield _header(("Credit note", "Reason"), ("Amount",)) + "<tbody>"
        for note in head.notes:
            yield _row((note.number, note.reason), (_minor(note.total_minor, head),))
        yield _row(("", "Left of this invoice"), (_minor(left, head),)) + "</tbody></table>\n"
    yield "<footer>"
    if head.terms.tax:
        yield "<dl>"
        for name, value in head.terms.tax.items():
            yield f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        yield "</dl>"
    yield "<p>No tax is computed here: amounts are without tax unless it is stated above.</p>"
    yield (
        "<p>Tokens are charged exactly and the total is rounded once; lines are shown so that they"
        " add up to it.</p>"
    )
    if head.sha256 is not None:
        yield f"<p>SHA-256 of lines.csv, with the exact amounts: <code>{head.sha256}</code></p>"
    yield "</footer>\n"


def _header(texts: Sequence[str], figures: Sequence[str]) -> str:
    cells = [f'<th scope="col">{name}</th>' for name in texts]
    cells += [f'<th scope="col" class="figure">{name}</th>' for name in figures]
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _row(texts: Sequence[str], figures: Sequence[str]) -> str:
    cells = [f"<td>{escape(text)}</td>" for text in texts]
    cells += [f'<td class="figure">{escape(figure)}</td>' for figure in figures]
    return f"<tr>{''.join(cells)}</tr>\n"


def _total(head: Head, columns: int) -> str:
    money = escape(_money(head.total_minor, head.currency))
    return (
        f'<tfoot><tr><th colspan="{columns}" scope="row">Total</th>'
        f'<td class="figure">{money}</td></tr></tfoot>'
    )


def _minor(minor: int, head: Head) -> str:
    return _grouped(format_minor(minor, head.currency))


def _money(minor: int, currency: str) -> str:
    return f"{_grouped(format_minor(minor, currency))} {currency}"


def _grouped(amount: str) -> str:
    whole, point, rest = amount.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole != "-0" else amount


def _day(at_us: int, zone: ZoneInfo) -> date:
    return (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone).date()


def _shown(day: date) -> str:
    return f"{day.day} {day.strftime('%B %Y')}"
