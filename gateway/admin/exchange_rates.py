"""Exchange rates that invoices are made at: entered or imported, with source and day. None of them
ever changes; of two entries of a day the later one holds. One that leaps is a draft, until somebody
else than who entered it puts it in force.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.exchange import LEAP_PERCENT, MAX_AGE_DAYS, parse_rate
from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.operation import Answer, Call, Filter, Nothing, Operation, Page
from gateway.admin.problems import conflict, invalid, missing, together
from gateway.admin.resource import filters, page, page_of
from gateway.admin.roles import Right
from gateway.admin.second_person import require_another
from gateway.stores.sql import exchange_rates
from gateway.stores.sql.exchange_rates import RECORDS, ExchangeRate
from gateway.stores.sql.records import TakenError

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
    """`state` left out: POST makes an approved one; one that leaps is drafted."""

    source: Source
    state: Literal["draft", "approved"] | None = None


class RateImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: Source
    rates: Annotated[tuple[RateOfDay, ...], Meta(min_length=1, max_length=MOST)]


class RateView(RateBody, frozen=True, kw_only=True):
    """`counts`: it is the one of its pair and day that invoices are made at: the last entered or
    approved. A draft stays one; what was approved is a rate of its own, with its `draft_id`.
    """

    id: str
    created_at: str
    counts: bool
    draft_id: str | None


class EnteredView(RateView, frozen=True, kw_only=True):
    """`instead_of`: the id of the one of the same pair and day that counted until now."""

    instead_of: str | None


class ImportedView(msgspec.Struct, frozen=True, kw_only=True):
    """`known`: the same rate of the same day and source holds, or is a draft, already. `drafts` are
    the ids of those that leap, as `notes` say: they count once somebody else has approved them.
    """

    added: int
    known: int
    drafts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class RatePage(Page, frozen=True, forbid_unknown_fields=True):
    base: Filter | None = None
    quote: Filter | None = None
    day: Filter | None = None
    source: Filter | None = None
    state: Literal["draft", "approved"] | None = None


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

    def work(connection: Connection) -> EnteredView:
        before = _of_day(connection, body)
        row = _row(call, body, body.source, body.state or "approved")
        told = exchange_rates.leap(connection, row)
        if told is not None and row.state == "approved":
            remedy = 'POST it with "state": "draft"; a colleague approves it with '
            raise invalid("rate", told, f"{remedy}POST /admin/v1/exchange-rates/{{id}}/approve")
        return _entered(connection, _added(call, connection, row), before)

    told = await call.write(work)
    return Answer(told, 1, f"/admin/v1/exchange-rates/{told.id}")


async def _import(call: Call) -> Answer:
    """All of them or none; what holds already is not entered twice."""
    body = call.body(RateImport)
    together(*(partial(_check, each, f"rates[{n}].") for n, each in enumerate(body.rates)))

    def work(connection: Connection) -> ImportedView:
        added, notes = 0, {}
        for each in body.rates:
            if _holds(connection, each, body.source):
                continue
            row = _row(call, each, body.source, "approved")
            told = exchange_rates.leap(connection, row)
            if told is None:
                added += bool(_added(call, connection, row))
            elif exchange_rates.draft_of(connection, row) is None:
                row = _added(call, connection, msgspec.structs.replace(row, state="draft"))
                notes[row.id] = f"{row.id}: {told}: look twice before you approve it"
        known = len(body.rates) - added - len(notes)
        return ImportedView(added=added, known=known, drafts=(*notes,), notes=(*notes.values(),))

    return Answer(await call.write(work))


async def _read(call: Call) -> Answer:
    def work(connection: Connection) -> tuple[ExchangeRate, ExchangeRate | None]:
        row = RECORDS.one(connection, id=call.id)
        if row is None:
            raise missing("exchange rate", call.id)
        return row, _of_day(connection, row)

    row, counting = await call.read(work)
    return Answer(_view(row, counting), row.version)


async def _approve(call: Call) -> Answer:
    """The draft stays as it was entered; what counts from now on is a row beside it."""
    call.body(Nothing)

    def work(connection: Connection) -> EnteredView:
        draft = RECORDS.one(connection, id=call.id)
        if draft is None:
            raise missing("exchange rate", call.id)
        call.require_version(draft.version)
        done = draft if draft.state == "approved" else RECORDS.one(connection, draft_id=draft.id)
        before = _of_day(connection, draft)
        if done is not None:
            return _entered(connection, done, None)
        told = exchange_rates.leap(connection, draft)
        if told is not None:
            require_another(connection, draft.drafted_by, call.principal, told)
        approved = msgspec.structs.replace(
            draft,
            id=ids.new("rate"),
            state="approved",
            approved_by=call.principal.id,
            draft_id=draft.id,
            created_at_us=clock.now_us(),
        )
        return _entered(connection, _added(call, connection, approved), before)

    try:
        told = await call.write(work)
    except TakenError:
        raise conflict("changed", "somebody else approves it at this moment") from None
    return Answer(told, 1)


def operations() -> list[Operation]:
    path, noun = "/exchange-rates", "exchange-rates"
    return [
        Operation(
            "GET", path, noun, "List exchange rates", _list,
            right=Right.PRICES_READ, query=RatePage, answers=page_of(RateView),
        ),
        Operation(
            "POST", path, noun, "Enter an exchange rate", _enter,
            right=Right.RATES_CHANGE, status=201, body=RateBody, answers=EnteredView, etag=True,
            refusals=(422,),
            description="It never changes. A wrong one is put right by entering another of the "
            "same day, which counts from then on whatever its source; `instead_of` names the one "
            "that did. Invoices that are issued keep theirs. One that is more than "
            f"{LEAP_PERCENT} percent away from what holds on its day, or on the nearest day before "
            f"or after within {MAX_AGE_DAYS}, is entered as a draft, which somebody else approves.",
        ),
        Operation(
            "POST", f"{path}/import", noun, "Enter the rates of a source", _import,
            right=Right.RATES_CHANGE, body=RateImport, answers=ImportedView, refusals=(422,),
            description="Sent again it adds nothing. Those that leap are drafted.",
        ),
        Operation(
            "GET", f"{path}/{{id}}", noun, "Read an exchange rate", _read,
            right=Right.PRICES_READ, answers=RateView, etag=True, refusals=(404,),
        ),
        Operation(
            "POST", f"{path}/{{id}}/approve", noun, "Put a drafted exchange rate in force",
            _approve, right=Right.RATES_CHANGE, body=Nothing, body_optional=True,
            answers=EnteredView, etag=True, if_match=True, refusals=(404, 409, 412),
            description="The answer is the rate that counts from now on, under an id of its own.",
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


def _row(call: Call, given: RateOfDay, source: str, state: str) -> ExchangeRate:
    return ExchangeRate(
        id=ids.new("rate"),
        base=given.base,
        quote=given.quote,
        rate=given.rate,
        day=given.day,
        source=source,
        created_at_us=clock.now_us(),
        state=state,
        drafted_by=call.principal.id,
        approved_by=call.principal.id if state == "approved" else None,
    )


def _added(call: Call, connection: Connection, row: ExchangeRate) -> ExchangeRate:
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
        state="draft" if row.state == "draft" else "approved",
        created_at=clock.rfc3339(row.created_at_us),
        counts=counting is not None and counting.id == row.id,
        draft_id=row.draft_id,
    )


def _entered(connection: Connection, row: ExchangeRate, before: ExchangeRate | None) -> EnteredView:
    """`before` counted until `row`, which was added just now, did."""
    shown = _view(row, _of_day(connection, row))
    instead_of = before.id if before is not None and shown.counts else None
    return EnteredView(**msgspec.structs.asdict(shown), instead_of=instead_of)
