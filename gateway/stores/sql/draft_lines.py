"""What the invoice of a month says, made from the ledger as it is: its lines, and the usage that
they are of. Nothing is kept here.

A month is closed by the invoice that is issued after its end. What is booked of it later goes on
the next invoice, with its own period.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, exists, func, select

from billing.discounts import undiscounted
from billing.drawdown import Sums, drawn, within
from billing.invoices import OF_USAGE, Aggregate, InvoiceLine, Minimum, charged
from billing.month_steps import Standing, over_booked
from billing.periods import Window
from billing.prices import RateCard
from billing.quantity import step_of, whole_version
from billing.terms import Terms, minimum_picos
from gateway.stores.sql import commitments, coverage, former_names, invoices, rate_cards
from gateway.stores.sql.commitments import Drafting
from gateway.stores.sql.cost_centers import CostCenters
from gateway.stores.sql.coverage import Covered, Month, Payer, Used
from gateway.stores.sql.invoice_tables import invoice_lines, invoice_usage
from gateway.stores.sql.invoice_tables import invoices as table
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rows import Tenant
from gateway.stores.sql.tables import keys


class PeriodClosedError(ValueError):
    """The month is invoiced as a whole. The message says where late usage goes."""


class Part(msgspec.Struct, frozen=True):
    """One month that an invoice takes from: its own, or a closed one that more was booked of."""

    period: str
    span: Window
    terms: Terms
    closing: str | None = None  # number of the invoice that closed it


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What an invoice is made after: the months that are closed, the instant by which those are
    over whose minimums and commitments are due, the one at which other invoices stood (None: now),
    and by the key of its term what such have of it that are kept nowhere.
    """

    closed: Collection[str]
    over_by_us: int
    stood_at_us: int | None = None
    drawn: Mapping[str, Sums] = {}


class Made(msgspec.Struct, frozen=True):
    """The lines without the one that rounds them; and by team, what its own month was charged in
    all, at what it was booked at.
    """

    lines: list[InvoiceLine]
    covered: list[Covered]
    charged: Mapping[str, int]


def issued(connection: Connection, tenant_id: str, stood_at_us: int | None = None) -> list[Invoice]:
    """The tenant's invoices that stand, or stood then, in the order of their months."""
    stood = invoices.stood(stood_at_us)
    query = select(table).filter_by(tenant_id=tenant_id, kind="invoice").where(stood)
    found = connection.execute(query.order_by(table.c.period, table.c.issued_at_us))
    return [Invoice(**row) for row in found.mappings()]


def with_spans(
    connection: Connection, tenant_id: str, found: list[Invoice], stood_at_us: int | None = None
) -> list[Invoice]:
    """`found`, which are all that stand, and those voided of whose months they have usage: in
    whichever time zone such a month is invoiced anew, it begins and ends where it did, or that
    usage would be billed twice.
    """
    of, head = invoice_usage.c, table.alias()
    query = (
        select(head)
        .where(head.c.tenant_id == tenant_id, head.c.kind == "invoice", head.c.status == "voided")
        .where(
            exists()
            .where(of.invoice_id == table.c.id, table.c.tenant_id == tenant_id)
            .where(invoices.stood(stood_at_us), table.c.id != head.c.id)
            .where(of.period_start_us == head.c.period_start_us)
            .where(of.period_end_us == head.c.period_end_us)
        )
    )
    taken = [Invoice(**row) for row in connection.execute(query).mappings()]
    there = {each.id for each in found}
    return found + [each for each in taken if each.id not in there]


def closed(found: Iterable[Invoice]) -> set[str]:
    """The months that are invoiced as a whole."""
    return {each.period for each in found if not each.early}


def span(calendar: Window, period: str, found: Iterable[Invoice]) -> Window:
    """The month, or where a neighbour was invoiced in another time zone what that left of it: no
    instant is in two months or in none. PeriodClosedError where the month is invoiced as a whole.
    """
    start_us, end_us = calendar.start_us, calendar.end_us
    for each in found:
        if each.period == period and each.status == "issued" and not each.early:
            raise PeriodClosedError(
                f"{period} is closed by invoice {each.number}; what is booked of it since goes on "
                "the next month's invoice as a correction"
            )
        if each.period == period:
            return each.span
        if following(each.period) == period:
            start_us = each.period_end_us
        elif each.period == following(period):
            end_us = each.period_start_us
    return Window(calendar.id, start_us, end_us)


def following(period: str) -> str:
    """The next month."""
    year, number = (int(part) for part in period.split("-"))
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def late_parts(connection: Connection, period: str, found: Iterable[Invoice]) -> Iterator[Part]:
    """The closed months before, each by the terms that its invoice was issued under."""
    for each in found:
        if not each.early and each.period < period:
            kept = invoices.terms_of(connection, each)
            yield Part(each.period, each.span, kept, each.number)


def made(
    connection: Connection, tenant: Tenant, invoice_id: str, parts: Sequence[Part], before: Before
) -> Made:
    """In the currency of the ledger. The first part is the invoice's own month.

    UnbalancedError when the ledger contradicts itself.
    """
    own = parts[0]
    agreed = commitments.terms_for(connection, tenant, own.period)
    found = _found(connection, tenant, parts, before, commitments.months_of(agreed))
    lines = charged(
        (_aggregate(part, each, found.cards) for part, each in found.left),
        invoice_id=invoice_id,
        currency=tenant.currency,
        period=own.span,
        minimums=found.minimums,
        before=(_aggregate(part, each, found.cards) for part, each in found.billed),
        stood=_steps(connection, tenant, found.billed, before.stood_at_us),
    )
    if agreed:
        drafting = Drafting(
            own.period,
            own.span.end_us <= before.over_by_us,
            found.months,
            before.closed,
            before.stood_at_us,
            before.drawn,
        )
        standings = commitments.standings(connection, tenant, agreed, drafting)
        lines = drawn(lines, standings, invoice_id)
    return Made(lines, [each for _, each in found.left], found.charged)


class _Found:
    """What the ledger has of the months that an invoice takes from."""

    def __init__(self) -> None:
        self.left: list[tuple[Part, Covered]] = []  # on no invoice
        self.billed: list[tuple[Part, Covered]] = []  # on others, and decides prices of this one
        self.minimums: list[Minimum] = []
        self.months: dict[str, int] = {}  # with usage, by the instants at which they begin
        self.cards: dict[str, RateCard] = {}
        self.charged: dict[str, int] = {}


def _found(
    connection: Connection,
    tenant: Tenant,
    parts: Sequence[Part],
    before: Before,
    committed: Collection[str],
) -> _Found:
    found, own = _Found(), parts[0]
    centers = CostCenters(connection, tenant.id)
    key_names = _key_names(connection, tenant.id)

    def covered(part: Part, payer: Payer, used: Used) -> tuple[Part, Covered]:
        team = centers.team_names.get(payer.team_id, payer.team_id)
        key = key_names.get(payer.key_id, payer.key_id)
        return part, Covered(payer=payer, period=part.span, team=team, key=key, used=used)

    for part in parts:
        of = coverage.unbilled(connection, tenant.id, part.span, centers, before.stood_at_us)
        unknown = {payer.charge_card for payer, _ in of.both} - {*found.cards}
        found.cards |= rate_cards.get(connection, unknown)
        if part is own:
            found.charged = _by_team(of, centers.team_names)
        if of.left or part is own:
            found.months[part.period] = part.span.start_us
        if part.period not in committed:
            due = _due(part, _charged_picos(of, found.cards), tenant, before.over_by_us)
            found.minimums.append(_minimum(connection, part, due, tenant, before.stood_at_us))
        found.left += [covered(part, payer, used) for payer, used in sorted(of.left.items())]
        taken = (each for each in of.taken.items() if _counts(each[0], found.cards))
        found.billed += [covered(part, *each) for each in taken]
    return found


def _by_team(month: Month, names: Mapping[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for payer, used in month.both:
        team = names.get(payer.team_id, payer.team_id)
        found[team] = found.get(team, 0) + used.charge_picos
    return found


def _charged_picos(month: Month, cards: dict[str, RateCard]) -> int:
    """By the prices that the month's total decides."""
    booked = sum(used.charge_picos for _, used in month.both)
    new, taken = (
        [(cards[payer.charge_card], used.meters) for payer, used in each.items()]
        for each in (month.left, month.taken)
    )
    return booked - over_booked(new, taken)


def _counts(payer: Payer, cards: dict[str, RateCard]) -> bool:
    """Whether what was billed decides what more is billed at."""
    return any(rate.schedule is not None for rate in cards[payer.charge_card].rates)


def _due(part: Part, charged_picos: int, tenant: Tenant, over_by_us: int) -> int:
    """What the month's minimum asks for beyond its usage."""
    if part.span.end_us > over_by_us:
        return 0
    agreed = minimum_picos(part.terms, part.period, tenant.currency)
    return max(0, agreed - charged_picos) if agreed else 0


def _minimum(
    connection: Connection, part: Part, due: int, tenant: Tenant, stood_at_us: int | None
) -> Minimum:
    """Less what was charged for it already."""
    of = invoice_lines.c
    charged = connection.scalars(
        select(of.amount_picos)
        .join(table, table.c.id == of.invoice_id)
        .where(table.c.tenant_id == tenant.id, invoices.stood(stood_at_us))
        .where(of.line_kind == "minimum", of.period_start_us == part.span.start_us)
    )
    return Minimum(picos=due - sum(charged), period=part.span, corrects_invoice=part.closing)


def _steps(
    connection: Connection,
    tenant: Tenant,
    billed: Iterable[tuple[Part, Covered]],
    stood_at_us: int | None,
) -> Standing:
    """The steps in which the lines of other invoices have the tokens of these months."""
    found: dict[tuple[str, int, int], dict[int, int]] = {}
    of = invoice_lines.c
    for start_us, end_us in sorted({(part.span.start_us, part.span.end_us) for part, _ in billed}):
        lines = connection.execute(
            select(of.price_version, func.sum(of.quantity))
            .join(table, table.c.id == of.invoice_id)
            .where(table.c.tenant_id == tenant.id, invoices.stood(stood_at_us))
            .where(of.period_start_us == start_us, of.period_end_us == end_us)
            .where(of.line_kind.in_(OF_USAGE))
            .group_by(of.price_version)
        )
        for version, tokens in lines:
            plain = within(version)
            steps = found.setdefault((undiscounted(whole_version(plain)), start_us, end_us), {})
            steps[step_of(plain)] = steps.get(step_of(plain), 0) + int(tokens)
    return found


def _aggregate(part: Part, each: Covered, cards: dict[str, RateCard]) -> Aggregate:
    payer = each.payer
    return Aggregate(
        cost_center=payer.cost_center,
        team=each.team,
        key=each.key,
        model=payer.model,
        backend_region=payer.region,
        provenance=payer.provenance,
        card=cards[payer.charge_card],
        meters=each.used.meters,
        charge_picos=each.used.charge_picos,
        period=part.span,
        corrects_invoice=part.closing,
    )


def _key_names(connection: Connection, tenant_id: str) -> dict[str, str]:
    """By id, of those that were deleted too."""
    query = select(keys.c.id, keys.c.name).where(keys.c.tenant_id == tenant_id)
    former = former_names.RECORDS.all(connection, tenant_id=tenant_id)
    named = {each.id: each.name for each in former}
    return named | {row.id: row.name for row in connection.execute(query)}
