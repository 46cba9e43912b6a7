"""What a box of our own cost in a month beyond its tokens: looked at, and booked in the ledger."""

from collections.abc import Awaitable, Sequence
from typing import Annotated, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.idle import IDLE
from billing.money import format_picos
from billing.periods import window
from gateway import clock
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import conflict, invalid, missing
from gateway.admin.roles import Right
from gateway.stores.sql import backends, idle_bookings, rows
from gateway.stores.sql.idle_bookings import NothingToBookError, Standing
from gateway.stores.sql.idle_entries import RECORDS, IdleBooking

T = TypeVar("T")

Spread = Literal["platform", "busy", "even"]
Month = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$",
        description="a month of UTC that is over",
        extra={"rule": "a month such as 2026-10"},
    ),
]
_NOUN: Final = "idle-bookings"
_UTC: Final = ZoneInfo("UTC")


class IdleQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """By default the last month that is over."""

    period: Month | None = None
    spread: Spread = "platform"


class IdleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`spread`: who bears it, the platform (on the account `idle`), teams by the time of their
    requests, or all teams evenly.
    """

    period: Month
    spread: Spread = "platform"


class IdlePart(msgspec.Struct, frozen=True, kw_only=True):
    """`account`: `idle`, or the id of a team. `due`: what of it is not booked yet."""

    account: str
    amount: str
    due: str


class IdleEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One booking: what it added to those before it."""

    id: str
    spread: str
    amount: str
    booked_by: str
    created_at: str


class IdleLeft(msgspec.Struct, frozen=True, kw_only=True):
    """`actual` = `absorbed` by the tokens that were admitted in the month + `variance`; `parts` add
    up to it. `from` is later than the month's first moment where the `tco` counts since then; what
    tokens of the month bore before is `absorbed_before`, and what the box cost then is not booked.
    """

    from_: str = msgspec.field(name="from")
    to: str
    busy_seconds: int
    currency: str
    actual: str
    absorbed: str
    absorbed_before: str
    variance: str
    spread: str
    parts: tuple[IdlePart, ...]


class IdleView(msgspec.Struct, frozen=True, kw_only=True):
    """`because`: why there is nothing to book, where `left` is null."""

    backend_id: str
    period: str
    left: IdleLeft | None
    because: str | None
    booked: tuple[IdleEntry, ...]


async def _look(call: Call) -> Answer:
    query: IdleQuery = call.query
    period = query.period or _last_month()

    def work(connection: Connection) -> IdleView:
        backend = _backend(connection, call.id)
        try:
            busy_us = idle_bookings.busy_in(connection, backend, period)
            now = idle_bookings.standing(connection, backend, period, query.spread, busy_us)
        except NothingToBookError as fault:
            booked = RECORDS.all(connection, backend_id=backend.id, period=period)
            return _view(backend.id, period, booked, because=str(fault))
        return _view(backend.id, period, now.booked, left=_left(now))

    return Answer(await _answered(call.read(work)))


def _last_month() -> str:
    begun_us = window("month", _UTC, clock.now_us()).start_us
    return window("month", _UTC, begun_us - 1).id.removeprefix("m")


async def _book(call: Call) -> Answer:
    body = call.body(IdleBody)
    by = call.principal.id

    def busy(connection: Connection) -> int:
        return idle_bookings.busy_in(connection, _backend(connection, call.id), body.period)

    busy_us = await _answered(call.read(busy))

    def work(connection: Connection) -> Standing:
        backend = _backend(connection, call.id)
        now = idle_bookings.book(connection, backend, body.period, body.spread, busy_us, by)
        if now.added is not None:  # where the month agreed already, the audit chain is told nothing
            call.changed(connection, _NOUN, None, now.added)
        return now

    now = await _answered(call.write(work))
    return Answer(_view(call.id, body.period, now.booked, left=_left(now)))


async def _answered(work: Awaitable[T]) -> T:
    try:
        return await work
    except NothingToBookError as fault:
        raise conflict("nothing_to_book", str(fault)) from None
    except ValueError as fault:
        raise invalid("period", str(fault)) from None


def _backend(connection: Connection, identifier: str) -> rows.Backend:
    found = backends.RECORDS.one(connection, id=identifier)
    if found is None:
        raise missing("backend", identifier)
    return found


def _view(
    backend_id: str,
    period: str,
    booked: Sequence[IdleBooking],
    *,
    left: IdleLeft | None = None,
    because: str | None = None,
) -> IdleView:
    entries = tuple(map(_entry, booked))
    return IdleView(
        backend_id=backend_id, period=period, left=left, because=because, booked=entries
    )


def _left(now: Standing) -> IdleLeft:
    (start_us, end_us), due = now.span_us, now.due
    return IdleLeft(
        from_=clock.rfc3339(start_us),
        to=clock.rfc3339(end_us),
        busy_seconds=now.busy_us // 1_000_000,
        currency=now.profile.currency,
        actual=format_picos(now.money.actual_picos),
        absorbed=format_picos(now.money.absorbed_picos),
        absorbed_before=format_picos(now.before_picos),
        variance=format_picos(now.money.variance_picos),
        spread=now.rule,
        parts=tuple(
            IdlePart(
                account=whose[1] or IDLE,
                amount=format_picos(now.parts.get(whose, 0)),
                due=format_picos(due.get(whose, 0)),
            )
            for whose in sorted({*now.parts, *due})
        ),
    )


def _entry(row: IdleBooking) -> IdleEntry:
    return IdleEntry(
        id=row.id,
        spread=row.rule,
        amount=format_picos(sum(part.picos for part in row.parts)),
        booked_by=row.booked_by,
        created_at=clock.rfc3339(row.created_at_us),
    )


def operations() -> list[Operation]:
    path: Final = "/backends/{id}/idle"
    return [
        Operation(
            "GET", path, "backends", "See what a box cost in a month beyond its tokens", _look,
            right=Right.PROVIDER_BILLS_READ, query=IdleQuery, answers=IdleView,
            refusals=(404, 422),
        ),
        Operation(
            "POST", path, "backends", "Book what a box cost in a month beyond its tokens", _book,
            right=Right.PROVIDER_BILLS_IMPORT, body=IdleBody, answers=IdleView,
            refusals=(404, 409, 422),
            description="On the account idle/BACKEND, or on those of the teams that bear it. Asked "
            "again, it books the difference: nothing where the month agrees, what came late, or "
            "what another spread makes of it. No charge and no invoice changes.",
        ),
    ]  # fmt: skip
