"""What a box of our own cost in a month beyond what its tokens bore: worked out, and booked.

Bookings of a month add up: what comes late, or another rule, is booked as the difference to what is
booked already, and what agrees is not booked again.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import ColumnElement, Connection, case, func, select

from billing.idle import IDLE, Absorbed, Rule, absorbed, spread
from billing.ledger import Part
from billing.observed import MINUTE_US, minutes
from billing.periods import month
from billing.tco import Profile
from gateway import clock, ids
from gateway.stores.sql import idle_entries, journal, worked
from gateway.stores.sql.bulk import append
from gateway.stores.sql.exact import exact_sum, require_room, whole
from gateway.stores.sql.idle_entries import RECORDS, IdleBooking
from gateway.stores.sql.rows import Backend
from gateway.stores.sql.tables import backends, postings, tenants, usage_rows

_UTC: Final = ZoneInfo("UTC")
_EVERY: Final = 2**62

Parts = Mapping[tuple[str, str], int]  # tenant and team, or two empty words: nobody's


class NothingToBookError(ValueError):
    """The month is not over, the box has no cost in it, or it is booked in another currency. The
    message says what to do.
    """


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A month of a box: what is left over by the rule now, and what of it is booked. In no booking
    is what the box cost before its profile counts; `before_picos` is what tokens of then bore.
    """

    backend: Backend
    profile: Profile
    period: str
    rule: Rule
    span_us: tuple[int, int]
    busy_us: int
    money: Absorbed
    parts: Parts
    before_picos: int
    booked: tuple[IdleBooking, ...]
    added: IdleBooking | None = None  # the last of `booked`, where it was booked just now

    @property
    def due(self) -> dict[tuple[str, str], int]:
        """What is not booked yet; nothing where it agrees."""
        due = defaultdict[tuple[str, str], int](int, self.parts)
        for row in self.booked:
            for part in row.parts:
                due[part.tenant_id, part.team_id] -= part.picos
        return {whose: picos for whose, picos in sorted(due.items()) if picos}


def busy_in(connection: Connection, backend: Backend, period: str) -> int:
    """Microseconds of the month. Reads every attempt of it: some seconds a million. Errors as of
    `standing`.
    """
    _, span_us = _bookable(backend, period)
    works = worked.works(connection, backend.id, *span_us, _EVERY)
    return sum(each.busy_us for each in minutes(works, *span_us))


def standing(
    connection: Connection, backend: Backend, period: str, rule: Rule, busy_us: int
) -> Standing:
    """NothingToBookError; ValueError for what is no month. Months are of UTC, as providers'."""
    profile, span_us = _bookable(backend, period)
    before_us = month(period, _UTC).start_us, span_us[0]
    booked = _booked(connection, backend, profile, period)
    borne = _borne(connection, backend.id, profile.currency, span_us)
    money = absorbed(profile, span_us[1] - span_us[0], busy_us, borne)
    took = _took(connection, backend.id, profile.currency, span_us)
    tenant_of = {team_id: tenant_id for tenant_id, team_id in took}
    weights = {team_id: took_us for (_, team_id), took_us in took.items()}
    parts = {
        ("", "") if name == IDLE else (tenant_of[name], name): picos
        for name, picos in spread(money.variance_picos, rule, weights).items()
    }
    return Standing(
        backend=backend,
        profile=profile,
        period=period,
        rule=rule,
        span_us=span_us,
        busy_us=busy_us,
        money=money,
        parts=parts,
        before_picos=_borne(connection, backend.id, profile.currency, before_us),
        booked=booked,
    )


def book(
    connection: Connection, backend: Backend, period: str, rule: Rule, busy_us: int, by: str
) -> Standing:
    """What is due of the month, posted and sealed; as it stands then. TooLargeError. `busy_us` is
    worked out before: nobody else books while this transaction lasts.
    """
    at = backends.c.id == backend.id
    connection.execute(select(backends.c.id).where(at).with_for_update())  # one after another
    now = standing(connection, backend, period, rule, busy_us)
    if not now.due:
        return now
    row = IdleBooking(
        id=ids.new("idle"),
        backend_id=backend.id,
        period=period,
        number=1 + max((each.number for each in now.booked), default=0),
        rule=rule,
        currency=now.profile.currency,
        from_us=now.span_us[0],
        to_us=now.span_us[1],
        busy_us=now.busy_us,
        actual_picos=now.money.actual_picos,
        absorbed_picos=now.money.absorbed_picos,
        parts=tuple(Part(*whose, picos) for whose, picos in now.due.items()),
        profile=now.profile,
        booked_by=by,
        created_at_us=clock.now_us(),
    )
    _post(connection, row)
    return msgspec.structs.replace(now, booked=(*now.booked, row), added=row)


def _post(connection: Connection, row: IdleBooking) -> None:
    new = idle_entries.derived(row)
    dialect = connection.dialect.name
    require_room(dialect, row.actual_picos, f"what {row.backend_id} cost in {row.period}")
    for each in new:
        require_room(dialect, each.amount_picos, f"what is posted on {each.account}")
    RECORDS.add(connection, row)
    append(
        connection,
        postings,
        [
            (p.event_id, p.kind, p.account, p.tenant_id, p.amount_picos, p.currency, p.at_us)
            for p in new
        ],
    )
    journal.seal_idle(connection, row.id, new, row.created_at_us)


def _bookable(backend: Backend, period: str) -> tuple[Profile, tuple[int, int]]:
    """The profile, and that part of the month in which the box has its cost, in whole minutes."""
    window = month(period, _UTC)
    if backend.tco is None:
        raise NothingToBookError(f"backend {backend.name} has no tco: its tokens are all its cost")
    if window.end_us > clock.now_us():
        raise NothingToBookError(f"{period} is not over: book it when it is")
    begins_us = backend.tco_from_us or 0
    if begins_us >= window.end_us:
        since = clock.rfc3339(begins_us)
        raise NothingToBookError(
            f"the tco of backend {backend.name} counts since {since}, after {period}: give it "
            "another tco_effective_from where that is wrong"
        )
    from_us = max(window.start_us, begins_us - begins_us % MINUTE_US)
    return backend.tco, (from_us, window.end_us)


def _booked(
    connection: Connection, backend: Backend, profile: Profile, period: str
) -> tuple[IdleBooking, ...]:
    found = RECORDS.all(connection, backend_id=backend.id, period=period)
    other = next((row.currency for row in found if row.currency != profile.currency), None)
    if other is not None:
        raise NothingToBookError(
            f"{period} is booked in {other}, and the tco of backend {backend.name} is in"
            f" {profile.currency}: it stays as it is; give the box a tco in {other} to correct it"
        )
    return found


def _borne(connection: Connection, backend_id: str, currency: str, span_us: tuple[int, int]) -> int:
    """What was booked of it as the cost of tokens that were admitted in the span."""
    rows = connection.execute(
        select(*exact_sum(connection.dialect.name, usage_rows.c.cost_picos)).where(
            *_admitted(backend_id, currency, span_us)
        )
    )
    return whole(*rows.one())


def _took(
    connection: Connection, backend_id: str, currency: str, span_us: tuple[int, int]
) -> dict[tuple[str, str], int]:
    """By tenant and team, the time of all their attempts together."""
    of = usage_rows.c
    signed = case((of.hold == "reversed", -of.duration_us), else_=of.duration_us)
    query = (
        select(of.tenant_id, of.team_id, func.sum(signed))
        .where(*_admitted(backend_id, currency, span_us))
        .group_by(of.tenant_id, of.team_id)
    )
    return {(tenant, team): int(took_us) for tenant, team, took_us in connection.execute(query)}


def _admitted(
    backend_id: str, currency: str, span_us: tuple[int, int]
) -> Sequence[ColumnElement[bool]]:
    """By the index of tenants and times: there is none of backends."""
    of = usage_rows.c
    return (
        of.tenant_id.in_(select(tenants.c.id)),
        of.admitted_at_us >= span_us[0],
        of.admitted_at_us < span_us[1],
        of.backend_id == backend_id,
        of.currency == currency,
    )
