"""What was spent hour by hour: the past that alerts and forecasts rest on."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from gateway.stores.sql.tables import usage_rows

_HOUR_US = 3_600_000_000


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
