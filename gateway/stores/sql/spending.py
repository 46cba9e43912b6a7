"""What was spent hour by hour: the past that alerts and forecasts rest on."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from gateway.stores.sql.tables import usage_rows

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_LONGEST_US = _HOUR_US  # of a request: one that is longer loops slowly


class Spent(NamedTuple):
    """In one hour since 1970, by one key; `counter_nanos` are counter units of the currency."""

    hour: int
    team_path: str
    key_id: str
    counter_nanos: int


def hourly(connection: Connection, tenant_id: str, from_us: int, to_us: int) -> Sequence[Spent]:
    """Of a tenant's requests admitted from `from_us` up to, not including, `to_us`."""
    of = usage_rows.c
    hour = (of.admitted_at_us - of.admitted_at_us % _HOUR_US).label("hour_us")
    rows = connection.execute(
        select(hour, of.team_path, of.key_id, func.sum(of.counter_nanos))
        .where(of.tenant_id == tenant_id, of.admitted_at_us >= from_us, of.admitted_at_us < to_us)
        .group_by(hour, of.team_path, of.key_id)
    )
    return [Spent(int(at) // _HOUR_US, path, key, int(total)) for at, path, key, total in rows]


class SpentDay(NamedTuple):
    """In one span of 24 hours, by one key. `age` counts back: 0 is the last."""

    age: int
    team_path: str
    key_id: str
    counter_nanos: int


def daily(connection: Connection, tenant_id: str, until_us: int, days: int) -> Sequence[SpentDay]:
    """Of a tenant's requests admitted in the `days` times 24 hours before `until_us`."""
    of = usage_rows.c
    before = until_us - 1 - of.admitted_at_us
    age = (before - before % _DAY_US).label("age_us")
    rows = connection.execute(
        select(age, of.team_path, of.key_id, func.sum(of.counter_nanos))
        .where(
            of.tenant_id == tenant_id,
            of.admitted_at_us >= until_us - days * _DAY_US,
            of.admitted_at_us < until_us,
        )
        .group_by(age, of.team_path, of.key_id)
    )
    return [SpentDay(int(at) // _DAY_US, path, key, int(total)) for at, path, key, total in rows]


class Answered(NamedTuple):
    """One request that was charged for, with what its shape is made of."""

    team_path: str
    key_id: str
    model: str
    operation: str
    stream: bool
    input_tokens: int  # cached ones and those written to a cache among them
    finished_at_us: int
    counter_nanos: int


def busy_keys(
    connection: Connection,
    tenant_id: str,
    from_us: int,
    to_us: int,
    requests: int,
    counter_nanos: int,
) -> Sequence[str]:
    """A tenant's keys of which at least so many requests ended in [from, to), at such a cost."""
    of = usage_rows.c
    rows = connection.execute(
        select(of.key_id)
        .where(*_ended(tenant_id, from_us, to_us))
        .group_by(of.key_id)
        .having(func.count() >= requests, func.sum(of.counter_nanos) >= counter_nanos)
    )
    return [str(key_id) for (key_id,) in rows]


def answered(
    connection: Connection, tenant_id: str, keys: Collection[str], from_us: int, to_us: int
) -> Sequence[Answered]:
    """The requests of these keys that ended from `from_us` up to, not including, `to_us`."""
    of = usage_rows.c
    prompt = of.input_tokens + of.cache_read_tokens + of.cache_write_5m_tokens
    rows = connection.execute(
        select(
            of.team_path, of.key_id, of.model, of.operation, of.stream,
            (prompt + of.cache_write_1h_tokens).label("prompt"),
            of.finished_at_us, of.counter_nanos,
        )
        .where(*_ended(tenant_id, from_us, to_us), of.key_id.in_(list(keys)))
    )  # fmt: skip
    return [Answered(*row) for row in rows]


def _ended(tenant_id: str, from_us: int, to_us: int) -> tuple[ColumnElement[bool], ...]:
    """What was charged for, and not taken back as an estimate."""
    of = usage_rows.c
    return (
        of.tenant_id == tenant_id,
        of.admitted_at_us >= from_us - _LONGEST_US,
        of.finished_at_us >= from_us,
        of.finished_at_us < to_us,
        of.winner,
        of.hold != "reversed",
    )
