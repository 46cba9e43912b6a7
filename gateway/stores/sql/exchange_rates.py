"""Exchange rates, entered once and never changed, and the one that an invoice is made at."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, exists, select, tuple_

from billing.converted import in_currency
from billing.exchange import LEAP_PERCENT, MAX_AGE_DAYS, Exchange, inverse, is_leap
from billing.invoices import Draft
from gateway import clock
from gateway.stores.sql.invoice_tables import exchange_rates
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import Tenant

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class ExchangeRate(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    base: str
    quote: str
    rate: str  # of `quote` for one of `base`; at most 12 decimals
    day: str  # 2026-10-31
    source: str
    version: int = 1
    created_at_us: int = 0
    state: str = "approved"  # a draft stays one: what it becomes is a row of its own
    drafted_by: str | None = None  # id of the principal who entered it
    approved_by: str | None = None  # id of the principal who put the draft in force
    draft_id: str | None = None  # the draft that it was


class NoRateError(ValueError):
    """No rate is known that the invoice could be made at. The message says which one is missing."""


RECORDS: Final = Records(exchange_rates, ExchangeRate)


def in_force(
    connection: Connection, base: str, quote: str, first: str, last: str
) -> ExchangeRate | None:
    """Of the newest day within [first, last] that has one; of that day's the one entered, or
    approved, last. A draft is none.
    """
    of = exchange_rates.c
    query = (
        select(exchange_rates)
        .where(of.base == base, of.quote == quote, of.day >= first, of.day <= last)
        .where(of.state == "approved")
        .order_by(of.day.desc(), of.created_at_us.desc(), of.id.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else RECORDS.row(row)


def leap(connection: Connection, entered: ExchangeRate) -> str | None:
    """What makes one think that it is a mistake: in words, beside which rate it leaps. It is held
    against the newest of the days before it, the one of its day, and the next after it, each of at
    most MAX_AGE_DAYS away, whichever way round; None when it leaps from none of them.
    """
    for found in _beside(connection, entered):
        if is_leap(entered.rate, found.rate, turned=found.base != entered.base):
            return (
                f"{entered.rate} {entered.quote} for 1 {entered.base} on {entered.day} is more than"
                f" {LEAP_PERCENT} percent away from {found.rate} {found.quote} for 1 {found.base} "
                f"on {found.day} ({found.source})"
            )
    return None


def _beside(connection: Connection, entered: ExchangeRate) -> Iterator[ExchangeRate]:
    """What holds around its day, entered whichever way round."""
    of, day = exchange_rates.c, date.fromisoformat(entered.day)
    pair = (entered.base, entered.quote)
    first, last = (str(day + timedelta(days=n)) for n in (-MAX_AGE_DAYS, MAX_AGE_DAYS))
    query = (
        select(exchange_rates)
        .where(tuple_(of.base, of.quote).in_([pair, pair[::-1]]), of.day.between(first, last))
        .where(of.state == "approved")
        .order_by(of.day, of.created_at_us, of.id)
    )
    by_pair: dict[str, dict[str, ExchangeRate]] = {}
    for row in RECORDS.rows(connection.execute(query).mappings().all()):
        by_pair.setdefault(row.base, {})[row.day] = row  # of a day's the last
    for days in by_pair.values():
        around = (
            max((each for each in days if each < entered.day), default=None),
            entered.day,
            min((each for each in days if each > entered.day), default=None),
        )
        yield from (days[each] for each in around if each in days)


def draft_of(connection: Connection, like: ExchangeRate) -> ExchangeRate | None:
    """A draft that says the same, by the same source, which nobody has approved."""
    of, later = exchange_rates.c, exchange_rates.alias().c
    query = (
        select(exchange_rates)
        .filter_by(base=like.base, quote=like.quote, day=like.day, state="draft")
        .where(of.rate == like.rate, of.source == like.source)
        .where(~exists().where(later.draft_id == of.id))
        .limit(1)
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else RECORDS.row(row)


def applied(
    connection: Connection, made: Draft, fresh: Invoice, tenant: Tenant, issued: list[Invoice]
) -> tuple[Draft, Invoice]:
    """The draft and its head in the head's currency. The rate is of the last day of the month, or
    of today while it runs, or the newest of the days before; entered the other way round it is
    turned. What corrects an invoice in the same currency comes at the rate of that one.
    NoRateError.
    """
    exchange = _exchange(connection, tenant, fresh)
    earlier = [(each, each.exchanged) for each in issued if each.currency == fresh.currency]
    made, exchange = in_currency(
        made,
        fresh.currency,
        exchange,
        invoice_id=fresh.id,
        period=fresh.span,
        rates={
            each.number: its.rate
            for each, its in earlier
            if each.number is not None and its is not None
        },
    )
    return made, replace(fresh, exchange=_ENCODER.encode(exchange).decode())


def _exchange(connection: Connection, tenant: Tenant, fresh: Invoice) -> Exchange:
    at_us = min(fresh.period_end_us - 1, clock.now_us())
    zone = ZoneInfo(tenant.timezone)
    last = (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone).date()
    first = last - timedelta(days=MAX_AGE_DAYS)
    base, quote = tenant.currency, fresh.currency
    found = in_force(connection, base, quote, str(first), str(last))
    if found is not None:
        return Exchange(currency=base, rate=found.rate, day=found.day, source=found.source)
    found = in_force(connection, quote, base, str(first), str(last))
    if found is None:
        raise NoRateError(_missing(base, quote, first, last))
    source = f"{found.source}, from {found.rate} {base} for 1 {quote}"
    return Exchange(currency=base, rate=inverse(found.rate), day=found.day, source=source)


def _missing(base: str, quote: str, first: date, last: date) -> str:
    return (
        f"there is no exchange rate from {base} to {quote} of {last}, nor of any day from {first} "
        "on; enter one with POST /admin/v1/exchange-rates"
    )
