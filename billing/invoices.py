"""An invoice: exact lines, one rounded total, and one line for the difference."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from billing.csv_files import safe_text
from billing.exchange import Amounts, Exchange
from billing.meters import Meters
from billing.money import format_picos, half_up, minor_picos, round_half_up
from billing.month_steps import (
    Asked,
    Counted,
    Identity,
    Standing,
    Tokens,
    Version,
    counted,
    order,
    tiered,
    version_key,
)
from billing.periods import Window, rfc3339
from billing.prices import RateCard
from billing.rating import RatedLine
from billing.rating import lines as rated_lines

UNIT: Final = "Tokens"
LineKind = Literal[
    "usage", "minimum", "credit", "rounding",
    "overage", "commitment", "drawdown", "true_up", "unused",  # of `billing.drawdown`
]  # fmt: skip
OF_USAGE: Final = ("usage", "overage")

COLUMNS: Final = (
    "line_id", "invoice_number", "tenant", "cost_center", "team", "key", "model",
    "backend_region", "meter", "quantity", "unit", "unit_price_per_million", "price_version",
    "amount", "currency", "charge_period_start", "charge_period_end", "provenance", "line_kind",
    "corrects_invoice",
)  # fmt: skip


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """Settled usage of one payer on one card: a sum of ledger rows that won. Names, not ids."""

    cost_center: str
    team: str
    key: str
    model: str
    backend_region: str
    provenance: str
    card: RateCard
    meters: Meters
    charge_picos: int  # the sum of the rows' own charges
    period: Window | None = None  # when it was used; None: in the invoice's own period
    corrects_invoice: str | None = None  # the number of the invoice it came too late for


class Minimum(msgspec.Struct, frozen=True, kw_only=True):
    """Beyond a month's usage; negative where too much of it was charged before."""

    picos: int
    period: Window
    corrects_invoice: str | None = None


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line. Fields are named as the table's columns; amounts are exact, in the currency of the
    ledger (`billing.exchange`), but for what is printed.
    """

    line_id: str
    cost_center: str = ""
    team: str = ""
    key: str = ""
    model: str = ""
    backend_region: str = ""
    meter: str = ""
    quantity: int = 0
    unit: str = ""
    picos_per_token: int = 0
    price_version: str = ""
    amount_picos: int
    amount_minor: int  # as printed: with all others it adds up to the total; none of `rounding`
    period_start_us: int  # of the charge, which is an earlier one where a line came late
    period_end_us: int
    provenance: str = ""
    line_kind: LineKind
    corrects_invoice: str | None = None
    credits_line: str | None = None  # the line of that invoice which a credit note takes from
    list_picos_per_token: int | None = None  # where a contract asks for another price than the list
    commitment: str | None = None  # the term that it draws on, or belongs to: its key
    commitment_picos: int | None = None  # what of that it uses, or what is unused of it
    commitment_paid: bool | None = None  # of usage on one: whether it was charged before

    @property
    def listed_picos(self) -> int:
        """Per token, what the list asks for."""
        asked = self.list_picos_per_token
        return self.picos_per_token if asked is None else asked


class Draft(msgspec.Struct, frozen=True):
    """The lines add up to `total_minor` exactly; at most one of them is of kind `rounding`."""

    lines: tuple[InvoiceLine, ...]
    total_minor: int  # minor units of the currency
    rounding_picos: int  # total minus usage, at most half a minor unit either way


class UnbalancedError(ValueError):
    """The ledger's charges are not what its tokens come to on its cards. Nothing may be invoiced
    from such rows; the message names the first.
    """


def draft(
    aggregates: Iterable[Aggregate],
    *,
    invoice_id: str,
    currency: str,
    period: Window,
    minimums: Iterable[Minimum] = (),
    before: Iterable[Aggregate] = (),
) -> Draft:
    """The lines of `charged`, and then the one that rounds their sum."""
    lines = charged(
        aggregates, invoice_id=invoice_id, currency=currency, period=period, minimums=minimums,
        before=before,
    )  # fmt: skip
    return rounded(lines, invoice_id=invoice_id, currency=currency, period=period)


def charged(
    aggregates: Iterable[Aggregate],
    *,
    invoice_id: str,
    currency: str,
    period: Window,
    minimums: Iterable[Minimum] = (),
    before: Iterable[Aggregate] = (),
    stood: Standing | None = None,
) -> list[InvoiceLine]:
    """Exact lines in a fixed order; the same rows in any order or grouping give the same bytes.
    `before`: what other invoices have of the same months, which counts for prices by quantity, and
    `stood` the steps that their lines have it in (None: those of so many tokens).
    UnbalancedError when an aggregate's tokens do not come to its charge; ValueError for a card in
    another currency.
    """
    asked: dict[Version, Asked] = {}
    plain, scheduled = _quantities(aggregates, currency, period, asked)
    _, earlier = _quantities(before, currency, period, asked)
    for month, new in sorted(scheduled.items(), key=lambda item: msgspec.json.encode(item[0])):
        span = month.version, month.period_start_us, month.period_end_us
        steps = None if stood is None else stood.get(span, {})
        _add(plain, tiered(new, earlier.get(month, {}), asked, steps))
    lines = [
        _usage_line(invoice_id, identity, quantity)
        for identity, quantity in sorted(plain.items(), key=lambda item: order(item[0]))
        if quantity
    ]
    return lines + [_minimum_line(invoice_id, each) for each in minimums if each.picos]


def rounded(
    lines: Sequence[InvoiceLine], *, invoice_id: str, currency: str, period: Window
) -> Draft:
    """Every line in printed minor units, and the one line that rounds their sum."""
    exact = sum(line.amount_picos for line in lines)
    total_minor = round_half_up(exact, currency)
    rounding_picos = minor_picos(total_minor, currency) - exact
    printed = in_minor_units([line.amount_picos for line in lines], currency)
    made = [replace(line, amount_minor=n) for line, n in zip(lines, printed, strict=True)]
    if rounding_picos:
        made.append(rounding_line(invoice_id, period, rounding_picos))
    return Draft(tuple(made), total_minor, rounding_picos)


def in_minor_units(amounts_picos: Sequence[int], currency: str) -> list[int]:
    """Each amount in minor units, by largest remainder: they add up to the rounded sum of all, and
    each is less than one minor unit from its exact amount. Of equal remainders the first rises.
    """
    return by_largest_remainder(amounts_picos, minor_picos(1, currency))


def by_largest_remainder(amounts: Sequence[int], step: int) -> list[int]:
    """The same of amounts in any unit of which `step` are one minor unit."""
    parts = [divmod(amount, step) for amount in amounts]
    missing = half_up(sum(amounts), step) - sum(whole for whole, _ in parts)
    by_remainder = sorted(range(len(parts)), key=lambda place: (-parts[place][1], place))
    raised = set(by_remainder[:missing])
    return [whole + (place in raised) for place, (whole, _) in enumerate(parts)]


def csv_rows(
    lines: Iterable[InvoiceLine],
    *,
    invoice_number: str | None,
    tenant: str,
    currency: str,
    exchange: Exchange | None = None,
) -> Iterator[tuple[str, ...]]:
    """The header, then a row a line, columns as in COLUMNS. A draft's number is empty. Text that a
    spreadsheet would take for a formula is made safe; numbers stay numbers.
    """
    yield COLUMNS
    amounts = Amounts(exchange)
    for line in lines:
        yield (
            line.line_id,
            safe_text(invoice_number or ""),
            safe_text(tenant),
            safe_text(line.cost_center),
            safe_text(line.team),
            safe_text(line.key),
            safe_text(line.model),
            safe_text(line.backend_region),
            line.meter,
            str(line.quantity),
            line.unit,
            amounts.price(line.picos_per_token, line.corrects_invoice),
            safe_text(line.price_version),
            amounts.text(line.line_kind, line.amount_picos, line.corrects_invoice),
            currency,
            rfc3339(line.period_start_us),
            rfc3339(line.period_end_us),
            line.provenance,
            line.line_kind,
            safe_text(line.corrects_invoice or ""),
        )


def _quantities(
    aggregates: Iterable[Aggregate],
    currency: str,
    period: Window,
    asked: dict[Version, Asked],
) -> tuple[Tokens, dict[Counted, Tokens]]:
    """By line, and apart what has a price by quantity, whose steps go into `asked`. What lists ask
    for is told beside, for what was booked before cards said it counts with what is booked since.
    """
    plain: Tokens = {}
    scheduled: dict[Counted, Tokens] = {}
    for aggregate in aggregates:
        for line, identity in _rated(aggregate, currency, period):
            into, schedule = plain, line.schedule
            if schedule is not None:
                of = asked.setdefault(version_key(identity), Asked(schedule))
                of.listed = line.list_schedule or of.listed
                into = scheduled.setdefault(counted(identity, schedule), {})
            _add(into, [(identity, line.quantity)])
    return plain, scheduled


def _add(quantities: Tokens, more: Iterable[tuple[Identity, int]]) -> None:
    for identity, quantity in more:
        quantities[identity] = quantities.get(identity, 0) + quantity


def _rated(
    aggregate: Aggregate, currency: str, period: Window
) -> Iterator[tuple[RatedLine, Identity]]:
    card = aggregate.card
    used = aggregate.period or period
    if card.currency != currency:
        raise ValueError(f"card {card.id} is in {card.currency}; the invoice is in {currency}")
    rated = rated_lines(aggregate.meters, card)
    comes_to = sum(line.amount_picos for line in rated)
    if comes_to != aggregate.charge_picos:
        raise UnbalancedError(
            f"usage of team {aggregate.team!r}, key {aggregate.key!r}, model {aggregate.model!r} "
            f"comes to {format_picos(comes_to)} on card {card.id}, but the ledger charged "
            f"{format_picos(aggregate.charge_picos)} {currency}"
        )
    for line in rated:
        identity = Identity(
            cost_center=aggregate.cost_center,
            team=aggregate.team,
            key=aggregate.key,
            model=aggregate.model,
            backend_region=aggregate.backend_region,
            meter=line.meter.value,
            price_version=line.version,
            picos_per_token=line.picos_per_token,
            provenance=aggregate.provenance,
            period_start_us=used.start_us,
            period_end_us=used.end_us,
            corrects_invoice=aggregate.corrects_invoice,
            list_picos_per_token=line.list_picos,
        )
        yield line, identity


def _usage_line(invoice_id: str, identity: Identity, quantity: int) -> InvoiceLine:
    return InvoiceLine(
        line_id=line_id(invoice_id, _named(identity)),
        quantity=quantity,
        unit=UNIT,
        amount_picos=quantity * identity.picos_per_token,
        amount_minor=0,
        line_kind="usage",
        **msgspec.structs.asdict(identity),
    )


def _named(identity: Identity) -> tuple[str | int | None, ...]:
    """A line that is charged at the list's price keeps the id it had before lists were told."""
    said = msgspec.structs.astuple(identity)
    return said[:-1] if identity.list_picos_per_token is None else said


def _minimum_line(invoice_id: str, minimum: Minimum) -> InvoiceLine:
    return InvoiceLine(
        line_id=line_id(invoice_id, ("minimum", minimum.period.start_us)),
        amount_picos=minimum.picos,
        amount_minor=0,
        period_start_us=minimum.period.start_us,
        period_end_us=minimum.period.end_us,
        line_kind="minimum",
        corrects_invoice=minimum.corrects_invoice,
    )


def rounding_line(invoice_id: str, period: Window, picos: int) -> InvoiceLine:
    return InvoiceLine(
        line_id=line_id(invoice_id, ("rounding",)),
        amount_picos=picos,
        amount_minor=0,
        period_start_us=period.start_us,
        period_end_us=period.end_us,
        line_kind="rounding",
    )


def line_id(invoice_id: str, identity: tuple[str | int | None, ...]) -> str:
    """Stable: refreshing a draft changes a line's figures, never its id."""
    content = msgspec.msgpack.encode((invoice_id, identity))
    return f"line_{hashlib.blake2b(content, digest_size=12).hexdigest()}"
