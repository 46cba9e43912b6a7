"""A booking of what a box cost beyond its tokens: its row, and the postings that follow from it."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

from billing.idle import absorbed
from billing.ledger import Part, Posting, idle_postings
from billing.money import format_picos
from billing.tco import Profile
from gateway.stores.sql.idle_tables import idle_bookings
from gateway.stores.sql.records import Records


class IdleBooking(msgspec.Struct, frozen=True, kw_only=True):
    """`actual` and `absorbed` are those of the month as it then was; `parts` what this booking adds
    to the ones before it, so that all of them together come to what was left over.
    """

    id: str
    backend_id: str
    period: str
    number: int
    rule: str
    currency: str
    from_us: int
    to_us: int
    busy_us: int
    actual_picos: int
    absorbed_picos: int
    parts: tuple[Part, ...]
    profile: Profile
    booked_by: str
    created_at_us: int


RECORDS: Final = Records(idle_bookings, IdleBooking)


def derived(row: IdleBooking) -> tuple[Posting, ...]:
    """They take effect in the last moment of their month."""
    return idle_postings(row.id, row.backend_id, row.parts, row.currency, row.to_us - 1)


def found(connection: Connection, booking_id: str) -> tuple[IdleBooking, tuple[Any, ...]] | None:
    """The booking, and the columns of its row as they are sealed."""
    query = select(idle_bookings).where(idle_bookings.c.id == booking_id)
    kept = connection.execute(query).mappings().one_or_none()
    return None if kept is None else (RECORDS.row(kept), tuple(kept.values()))


def faults(connection: Connection) -> Iterator[str]:
    """Of each month of a box all bookings together are what the last one says was left over, and
    what it says the box cost follows from its profile and its busy time.
    """
    sums: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], IdleBooking] = {}
    for row in sorted(RECORDS.all(connection), key=lambda row: row.number):
        key = (row.backend_id, row.period)
        sums[key] = sums.get(key, 0) + sum(part.picos for part in row.parts)
        last[key] = row
        made = absorbed(row.profile, row.to_us - row.from_us, row.busy_us, row.absorbed_picos)
        if made.actual_picos != row.actual_picos:
            yield f"idle booking {row.id}: what the box cost does not follow from its profile"
    for (backend_id, period), row in sorted(last.items()):
        left, booked = row.actual_picos - row.absorbed_picos, sums[backend_id, period]
        if left != booked:
            told = f"{format_picos(booked)} is booked of {format_picos(left)}"
            yield f"what {backend_id} cost beyond its tokens in {period}: {told}"
