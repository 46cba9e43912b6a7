"""Rollups: usage by quarter of an hour, kept in step with the usage rows by one transaction."""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, func, select

from billing.meters import Meters
from billing.rollups import SUM_FIELDS, Delta, fold
from billing.usage import UsageEvent
from gateway.stores.sql.bulk import Row, add_up
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.tables import rollups

_COLUMNS: Final = tuple(column.name for column in rollups.columns)


class Charged(msgspec.Struct, frozen=True, kw_only=True):
    """What one payer was charged on one rate card within a span of time. Ids, not names."""

    team_id: str
    key_id: str
    model: str
    region: str
    provenance: str
    charge_card: str
    meters: Meters
    charge_picos: int


def add(connection: Connection, events: Sequence[UsageEvent]) -> None:
    """Add events that have just been booked for the first time."""
    add_up(connection, rollups, SUM_FIELDS, [_row(delta) for delta in fold(events)])


def charged(connection: Connection, tenant_id: str, start_us: int, end_us: int) -> list[Charged]:
    """The winning attempts admitted in [start, end), summed by payer and card. Both instants
    must be edges of buckets, as every zone's midnights are.
    """
    r = rollups.c
    keys = (r.team_id, r.key_id, r.model, r.region, r.provenance, r.charge_card)
    tokens = (
        r.input_tokens,
        r.cache_read_tokens,
        r.cache_write_5m_tokens,
        r.cache_write_1h_tokens,
        r.output_tokens,
    )
    high, low = exact_sum(connection.dialect.name, r.charge_picos)
    found = connection.execute(
        select(*keys, *(func.sum(column) for column in tokens), high, low)
        .where(r.tenant_id == tenant_id, r.bucket_us >= start_us, r.bucket_us < end_us)
        .where(r.winner)
        .group_by(*keys)
        .order_by(*keys)
    )
    return [_charged(tuple(row)) for row in found]


def _charged(row: Row) -> Charged:
    team_id, key_id, model, region, provenance, card, *figures = row
    *tokens, high, low = figures
    return Charged(
        team_id=team_id,
        key_id=key_id,
        model=model,
        region=region,
        provenance=provenance,
        charge_card=card,
        meters=Meters(*(int(count) for count in tokens)),
        charge_picos=whole(high, low),
    )


def _row(delta: Delta) -> Row:
    return tuple(getattr(delta, name) for name in _COLUMNS)
