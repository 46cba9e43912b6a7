"""Exchange rates that invoices are made at: entered or imported, with source and day. None of them
ever changes; of two entries of a day the later one holds.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.exchange import parse_rate
from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.operation import Answer, Call, Filter, Operation, Page
from gateway.admin.problems import invalid, missing, together
from gateway.admin.resource import filters, page, page_of
from gateway.admin.roles import Right
from gateway.stores.sql import exchange_rates
from gateway.stores.sql.exchange_rates import RECORDS, ExchangeRate

MOST: Final = 1_000  # of one import

Day = Annotated[
    str,
    Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", extra={"rule": "a day such as 2026-10-31"}),
]
Source = Annotated[
    str,
    Meta(
        min_length=1, max_length=200, extra={"rule": "where the rate is from, in 1 to 200 letters"}
    ),
]


class RateOfDay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `base` is `rate` of `quote`."""

    base: fields.Currency
    quote: fields.Currency
    rate: fields.Decimal
    day: Day


class RateBody(RateOfDay, frozen=True, kw_only=True):
    source: Source


class RateImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: Source
    rates: Annotated[tuple[RateOfDay, ...], Meta(min_length=1, max_length=MOST)]


class RateView(RateBody, frozen=True, kw_only=True):
    """`counts`: it is the one of its pair and day that invoices are made at: the last entered."""

    id: str
    created_at: str
    counts: bool


class EnteredView(RateView, frozen=True, kw_only=True):
    """`instead_of`: the id of the one of the same pair and day that counted until now."""

    instead_of: str | None


class ImportedView(msgspec.Struct, frozen=True, kw_only=True):
    """`known`: the same rate of the same day and source holds already."""

    added: int
    known: int


class RatePage(Page, frozen=True, forbid_unknown_fields=True):
    base: Filter | None = None
    quote: Filter | None = None
    day: Filter | None = None
    source: Filter | None = None


async def _list(call: Call) -> Answer:
    where, size = filters(call.query), call.query.limit

    def work(connection: Connection) -> tuple[list[RateView], Sequence[ExchangeRate]]:
        found = RECORDS.page(
            connection,
            where,
            call.query.cursor,
            size + 1,
            call.visible(connection, call.noun),
            descending=call.query.descending,
        )
        return [_view(row, _of_day(connection, row)) for row in found[:size]], found

    shown, found = await call.read(work)
    return Answer(page(shown, found, size))


async def _enter(call: Call) -> Answer:
    body = call.body(RateBody)
    _check(body, "")

    def work(connection: Connection) -> tuple[ExchangeRate, ExchangeRate | None]:
        before = _of_day(connection, body)
        return _added(call, connection, body, body.source), before

    row, before = await call.write(work)
    shown = msgspec.structs.asdict(_view(row, row))
    told = EnteredView(**shown, instead_of=None if before is None else before.id)
    return Answer(told, row.version, f"/admin/v1/exchange-rates/{row.id}")


async def _import(call: Call) -> Answer:
    """All of them or none; what holds already is not entered twice."""
    body = call.body(RateImport)
    together(*(partial(_check, each, f"rates[{n}].") for n, each in enumerate(body.rates)))

    def work(connection: Connection) -> int:
        fresh = [each for each in body.rates if not _holds(connection, each, body.source)]
        for each in fresh:
            _added(call, connection, each, body.source)
        return len(fresh)

    added = await call.write(work)
    return Answer(ImportedView(added=added, known=len(body.rates) - added))


async def _read(call: Call) -> Answer:
    def work(connection: Connection) -> tuple[ExchangeRate, ExchangeRate | None]:
        row = RECORDS.one(connection, id=call.id)
        if row is None:
            raise missing("exchange rate", call.id)
        return row, _of_day(connection, row)

    row, counting = await call.read(work)
    return Answer(_view(row, counting), row.version)


def operations() -> list[Operation]:
    path, noun = "/exchange-rates", "exchange-rates"
    return [
        Operation(
            "GET", path, noun, "List exchange rates", _list,
            right=Right.PRICES_READ, query=RatePage, answers=page_of(RateView),
        ),
        Operation(
            "POST", path, noun, "Enter an exchange rate", _enter,
            right=Right.PRICES_CHANGE, status=201, body=RateBody, answers=EnteredView, etag=True,
            refusals=(422,),
            description="It never changes. A wrong one is put right by entering another of the "
            "same day, which counts from then on whatever its source; `instead_of` names the one "
            "that did. Invoices that are issued keep theirs.",
        ),
        Operation(
            "POST", f"{path}/import", noun, "Enter the rates of a source", _import,
            right=Right.PRICES_CHANGE, body=RateImport, answers=ImportedView, refusals=(422,),
            description="Sent again it adds nothing.",
        ),
        Operation(
            "GET", f"{path}/{{id}}", noun, "Read an exchange rate", _read,
            right=Right.PRICES_READ, answers=RateView, etag=True, refusals=(404,),
        ),
    ]  # fmt: skip


def _check(given: RateOfDay, at: str) -> None:
    together(
        lambda: fields.currency(given.base, f"{at}base"),
        lambda: fields.currency(given.quote, f"{at}quote"),
        lambda: fields.checked(f"{at}rate", parse_rate, given.rate),
        lambda: fields.checked(f"{at}day", date.fromisoformat, given.day),
    )
    if given.base == given.quote:
        raise invalid(f"{at}quote", "one currency has no rate to itself")
    # The day is the source's: somewhere it is tomorrow already.
    if date.fromisoformat(given.day) > _today() + timedelta(days=1):
        raise invalid(f"{at}day", f"nobody knows the rate of {given.day} yet")


def _today() -> date:
    return datetime.fromtimestamp(clock.now_us() // 1_000_000, UTC).date()


def _holds(connection: Connection, given: RateOfDay, source: str) -> bool:
    held = _of_day(connection, given)
    return held is not None and (held.rate, held.source) == (given.rate, source)


def _of_day(connection: Connection, of: RateOfDay | ExchangeRate) -> ExchangeRate | None:
    return exchange_rates.in_force(connection, of.base, of.quote, of.day, of.day)


def _added(call: Call, connection: Connection, given: RateOfDay, source: str) -> ExchangeRate:
    row = ExchangeRate(
        id=ids.new("rate"),
        base=given.base,
        quote=given.quote,
        rate=given.rate,
        day=given.day,
        source=source,
        created_at_us=clock.now_us(),
    )
    call.changed(connection, "exchange-rates", None, row)
    return RECORDS.add(connection, row)


def _view(row: ExchangeRate, counting: ExchangeRate | None) -> RateView:
    return RateView(
        id=row.id,
        base=row.base,
        quote=row.quote,
        rate=row.rate,
        day=row.day,
        source=row.source,
        created_at=clock.rfc3339(row.created_at_us),
        counts=counting is not None and counting.id == row.id,
    )
