"""Months priced anew: proposed from the rows of the ledger, and booked when they are approved.

A request is charged anew by two rows of its own month: one takes the row back that it was charged
by, one stands in for it. No row is ever taken back twice, so a correction is booked once; what
budgets counted stays as it is. An issued invoice stays, too: the next one has the difference.
"""

import re
from collections.abc import Iterator
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, RowMapping, exists, or_, select

from billing.markups import marked_up
from billing.periods import month
from billing.prices import Band, PriceBook, RateCard
from billing.rating import rate
from billing.repricing import Line, Repriced, Tally, card_instead
from billing.service_tiers import ServiceTier
from billing.usage import UsageEvent
from gateway import clock, ids
from gateway.stores.sql import corrections, discounts, models, prices, rate_cards, tenants, usage
from gateway.stores.sql.drafts import NotBegunError, UnknownTenantError, locked_tenant
from gateway.stores.sql.records import Records
from gateway.stores.sql.repricing_tables import repricing_lines, repricings
from gateway.stores.sql.tables import usage_rows

_AT_ONCE: Final = 5_000
_UNDER_WAY_US: Final = 3_600_000_000  # what came later may still be under way, or be looked at
_BEFORE: Final = re.compile(rf":{corrections.REPRICING}[0-9a-z]{{26}}$")
_LINE: Final = Line.__struct_fields__


class Repricing(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal for what was admitted in [start_us, end_us); amounts are picos of `currency`."""

    id: str
    tenant_id: str
    period: str
    model: str | None
    state: str  # draft | approved | rejected
    currency: str
    start_us: int
    end_us: int
    digest: str = ""
    requests: int = 0
    corrected: int = 0
    unpriced: int = 0
    old_picos: int = 0
    new_picos: int = 0
    old_tiers_picos: int = 0
    new_tiers_picos: int = 0
    drafted_by: str
    decided_by: str | None = None
    decided_at_us: int | None = None
    version: int = 1
    created_at_us: int


RECORDS: Final = Records(repricings, Repricing)


class ChangedError(Exception):
    """Rows or prices are not those that the proposal was made of."""


class DecidedError(Exception):
    """The proposal was approved or rejected before. The message says which."""


def compute(
    connection: Connection, tenant_id: str, period: str, model: str | None, by: str
) -> tuple[Repricing, tuple[Line, ...]]:
    """A proposal, not stored yet. UnknownTenantError; NotBegunError; ValueError for a period not
    written `2026-10`. Of a month that is running it has what is an hour old.
    """
    tenant = tenants.RECORDS.one(connection, id=tenant_id)
    if tenant is None:
        raise UnknownTenantError(tenant_id)
    span, now_us = month(period, ZoneInfo(tenant.timezone)), clock.now_us()
    end_us = min(span.end_us, now_us - _UNDER_WAY_US)
    if end_us <= span.start_us:
        raise NotBegunError(f"{period} has not begun an hour ago in {tenant.timezone}")
    blank = Repricing(
        id=ids.new("repricing"),
        tenant_id=tenant_id,
        period=period,
        model=model,
        state="draft",
        currency=tenant.currency,
        start_us=span.start_us,
        end_us=end_us,
        drafted_by=by,
        created_at_us=now_us,
    )
    found = _repriced(connection, blank, _Prices(connection))
    return _with(blank, found), found.lines


def add(connection: Connection, row: Repricing, lines: tuple[Line, ...]) -> None:
    RECORDS.add(connection, row)
    values = [{"repricing_id": row.id, **msgspec.structs.asdict(line)} for line in lines]
    if values:
        connection.execute(repricing_lines.insert(), values)


def lines_of(connection: Connection, repricing_id: str) -> list[Line]:
    """By team and model."""
    of = repricing_lines.c
    query = select(*(of[name] for name in _LINE)).where(of.repricing_id == repricing_id)
    found = connection.execute(query.order_by(of.team_id, of.model)).mappings()
    return [Line(**row) for row in found]


def locked(connection: Connection, row: Repricing) -> Repricing:
    """As it is now. Until the end of the transaction nothing is issued for its tenant."""
    locked_tenant(connection, row.tenant_id)
    found = RECORDS.one(connection, id=row.id)
    return row if found is None else found  # none is ever removed


def approve(connection: Connection, row: Repricing, by: str, at_once: int = _AT_ONCE) -> Repricing:
    """Books its corrections, all or none, `at_once` requests a time; `row` is `locked`. Approved
    again, it stays as it is. DecidedError for one that was rejected; ChangedError where it would
    book something else by now.
    """
    if row.state == "approved":
        return row
    _require_draft(row)
    corrections.one_at_a_time(connection, alone=True)
    asked = _Prices(connection)
    if _repriced(connection, row, asked, at_once).digest != row.digest:
        raise ChangedError(
            f"usage or prices of {row.period} are not those that this was made of; propose it anew"
        )
    tenant = tenants.RECORDS.one(connection, id=row.tenant_id)
    now_us = clock.now_us()
    for page in _pages(connection, row, at_once):
        events = list(_corrections(connection, row, page, asked))
        usage.correct(connection, tenant.shard if tenant else usage.DEFAULT_CHAIN, events, now_us)
    return _decided(connection, row, "approved", by)


def reject(connection: Connection, row: Repricing, by: str) -> Repricing:
    """It stays to be read. DecidedError for one that was approved."""
    if row.state == "rejected":
        return row
    _require_draft(row)
    return _decided(connection, row, "rejected", by)


def _require_draft(row: Repricing) -> None:
    if row.state != "draft":
        raise DecidedError(f"{row.id} is {row.state} already; propose the month anew")


def _decided(connection: Connection, row: Repricing, state: str, by: str) -> Repricing:
    decided = replace(
        row, state=state, decided_by=by, decided_at_us=clock.now_us(), version=row.version + 1
    )
    return RECORDS.replace(connection, decided)


def _with(blank: Repricing, found: Repriced) -> Repricing:
    return replace(
        blank,
        digest=found.digest,
        requests=sum(line.requests for line in found.lines),
        corrected=sum(line.corrected for line in found.lines),
        unpriced=found.unpriced,
        old_picos=sum(line.old_picos for line in found.lines),
        new_picos=sum(line.new_picos for line in found.lines),
        old_tiers_picos=found.old_tiers_picos,
        new_tiers_picos=found.new_tiers_picos,
    )


class _Prices:
    """The prices that are approved now, for whatever instant."""

    def __init__(self, connection: Connection) -> None:
        approved = prices.RECORDS.all(connection, state="approved")
        off = discounts.RECORDS.all(connection, state="approved")
        self._book = PriceBook(map(prices.version_of, approved), map(discounts.discount_of, off))
        self._markups = {each.name: each.markup for each in models.RECORDS.all(connection)}
        self._marked: dict[tuple[str, str], RateCard] = {}

    def card(self, event: UsageEvent) -> RateCard | None:
        """As `card_instead`, of the prices in force when it was admitted."""
        at_us, currency = event.admitted_at_us, event.currency
        tier = ServiceTier(event.service_tier or ServiceTier.STANDARD)
        bands = self._book.charge_bands(event.tenant_id, event.model, at_us, currency, tier)
        if not bands and event.model in self._markups and self._follows(event):
            place = event.backend_id, event.upstream_model
            costs = self._book.cost_bands(*place, at_us, currency, tier)
            markup = self._markups[event.model]
            bands = tuple(Band(each.above_tokens, self._up(each.card, markup)) for each in costs)
        return card_instead(event.usage, event.charge_card, bands)

    def _follows(self, event: UsageEvent) -> bool:
        """Whether what is charged follows from what it costs: its standard tier has no charge."""
        at_us, currency = event.admitted_at_us, event.currency
        return not self._book.charge_bands(event.tenant_id, event.model, at_us, currency)

    def _up(self, card: RateCard, markup: str) -> RateCard:
        """Made once: it takes its time."""
        found = self._marked.get((card.id, markup))
        if found is None:
            found = self._marked[card.id, markup] = marked_up(card, markup)
        return found


def _repriced(
    connection: Connection, row: Repricing, asked: _Prices, at_once: int = _AT_ONCE
) -> Repriced:
    tally = Tally()
    for page in _pages(connection, row, at_once):
        for event in _events(connection, page):
            new, team_id = asked.card(event), event.team_path[-1]
            tally.add(event.event_id, team_id, event.model, event.usage, event.charge_card, new)
    return tally.repriced()


def _corrections(
    connection: Connection, row: Repricing, page: list[RowMapping], asked: _Prices
) -> Iterator[UsageEvent]:
    for event in _events(connection, page):
        card = asked.card(event)
        if card is None or card.id == event.charge_card.id:
            continue
        # The time that it took was taken once, and is with the first row.
        booked = replace(event, duration_us=0, ttft_us=-1)
        yield corrections.reversed_of(booked)
        first = _BEFORE.sub("", event.event_id)
        yield replace(
            booked,
            event_id=f"{first}:{row.id}",
            charge_card=card,
            charge_picos=rate(event.usage, card),
        )


def _pages(connection: Connection, row: Repricing, at_once: int) -> Iterator[list[RowMapping]]:
    """What was charged and is not taken back, in the order of admission; without what this very
    proposal books, which lies in the same span.
    """
    of, taken = usage_rows.c, usage_rows.alias().c
    query = (
        select(usage_rows)
        .where(of.tenant_id == row.tenant_id, of.winner, of.currency == row.currency)
        .where(of.admitted_at_us < row.end_us, of.hold != "reversed")
        .where(~exists().where(taken.event_id == of.event_id + corrections.REVERSED))
        .where(~of.event_id.endswith(f":{row.id}", autoescape=True))
        .order_by(of.admitted_at_us, of.event_id)
        .limit(at_once)
    )
    if row.model is not None:
        query = query.where(of.model == row.model)
    at_us, event_id = row.start_us, ""
    while True:
        later = or_(of.admitted_at_us > at_us, of.event_id > event_id)
        page = connection.execute(query.where(of.admitted_at_us >= at_us, later)).mappings().all()
        if not page:
            return
        yield list(page)
        at_us, event_id = page[-1]["admitted_at_us"], page[-1]["event_id"]


def _events(connection: Connection, page: list[RowMapping]) -> Iterator[UsageEvent]:
    named = {row[name] for row in page for name in ("charge_card", "cost_card")} - {None}
    cards = rate_cards.get(connection, named)
    return (corrections.event_of(row, cards) for row in page)
