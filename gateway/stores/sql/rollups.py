"""Rollups: usage by quarter of an hour, in step with the usage rows to the instant.

Whoever books appends deltas in the transaction of the usage rows, and waits for no other writer.
`compact` adds them to their rollups: it takes a delta by deleting it, in the same transaction, so
that a crash leaves it where it was and nothing is counted twice. There is no cursor that could pass
by what another transaction commits late. What is read is both tables together, `rolled`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Select, Subquery, func, select, union_all

from billing.meters import Meters
from billing.rollups import KEY_FIELDS, SUM_FIELDS, Delta, canonical, fold
from billing.usage import UsageEvent
from gateway.stores.sql.bulk import Row, append
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.tables import rollup_deltas, rollups

COLUMNS: Final = tuple(column.name for column in rollups.columns)
MONEY: Final = ("charge_picos", "cost_picos")
_COUNTS: Final = tuple(name for name in SUM_FIELDS if name not in MONEY)
_READ_AT_ONCE: Final = 5_000


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


def _both() -> Subquery:
    tables = (rollups, rollup_deltas)
    return union_all(*(select(*(each.c[name] for name in COLUMNS)) for each in tables)).subquery(
        "rolled"
    )


# Several rows may have the same key: sums over it are exact, single rows mean nothing.
rolled: Final = _both()


def add(connection: Connection, events: Sequence[UsageEvent]) -> None:
    """Add events that have just been booked for the first time."""
    append(connection, rollups, [row(delta) for delta in fold(events)], into=rollup_deltas.name)


def charged(connection: Connection, tenant_id: str, start_us: int, end_us: int) -> list[Charged]:
    """The winning attempts admitted in [start, end), summed by payer and card. Both instants
    must be edges of buckets, as every zone's midnights are.
    """
    r = rolled.c
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


def lines(connection: Connection, tenant_id: str | None = None) -> Iterator[Delta]:
    """Every rollup, of one tenant or of all, in key order; memory does not grow with them."""
    of, dialect = rolled.c, connection.dialect.name
    keys = [of[name] for name in KEY_FIELDS]
    money = [part for name in MONEY for part in exact_sum(dialect, of[name])]
    # Bytes decide the order, not a language: it is the same on both databases.
    order = [each.collate("C") if _is_text(dialect, each) else each for each in keys]
    query: Select[Any] = select(
        *keys, func.max(of.currency), *(func.sum(of[name]) for name in _COUNTS), *money
    )
    if tenant_id is not None:
        query = query.where(of.tenant_id == tenant_id)
    found = connection.execution_options(yield_per=_READ_AT_ONCE).execute(
        query.group_by(*keys).order_by(*order)
    )
    return (_line(tuple(each)) for each in found)


def digest(connection: Connection, tenant_id: str | None = None) -> str:
    """SHA-256 of what the rollups say: the same usage has the same on every database."""
    hashed = hashlib.sha256()
    for each in canonical(lines(connection, tenant_id)):
        hashed.update(each)
    return hashed.hexdigest()


def _is_text(dialect: str, column: Any) -> bool:
    return dialect == "postgresql" and column.type.python_type is str


def _line(found: Row) -> Delta:
    keys, currency = found[: len(KEY_FIELDS)], found[len(KEY_FIELDS)]
    counts, money = found[len(keys) + 1 : -4], found[-4:]
    figures = [*map(int, counts), whole(*money[:2]), whole(*money[2:])]
    return Delta(*(*keys, currency, *figures))


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


def row(delta: Delta) -> Row:
    """In the order of the table's columns."""
    return tuple(getattr(delta, name) for name in COLUMNS)
