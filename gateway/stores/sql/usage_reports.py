"""Usage and money of a span of time, summed by whatever is asked for.

Rollups answer when they can; a span that cuts a bucket, a tag, or an end user needs the usage rows
themselves. Both are booked in one transaction, so the answer is the same to the last pico.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, FromClause, case, func, select
from sqlalchemy import literal_column as text_column

from billing.periods import rfc3339, window
from billing.rollups import BUCKET_US
from gateway.stores.sql.cost_centers import CostCenters
from gateway.stores.sql.engine import reading
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import tenants, usage_rows

DIMENSIONS: Final[Mapping[str, str]] = {
    "tenant": "tenant_id",
    "team": "team_id",
    "key": "key_id",
    "model": "model",
    "backend": "backend_id",
    "region": "region",
    "provenance": "provenance",
}
END_USER: Final = "end_user"
FILTERS: Final = (*DIMENSIONS.values(), END_USER)
TIMES: Final = ("hour", "day")
CENTERS: Final = ("cost_center", "cost_center_now")  # as it was when it was used, and as it is
MOST_GROUPS: Final = 100_000

_TAG: Final = re.compile(r"tag:[a-z0-9_.-]{1,32}")
_METERS: Final = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """`filters` by columns of FILTERS, `within` the same by any of several values; `group_by`
    dimensions, `hour`, `day`, `cost_center`, `cost_center_now`, `end_user` or `tag:NAME`.
    """

    start_us: int
    end_us: int
    group_by: tuple[str, ...] = ()
    filters: dict[str, str] = {}
    within: Mapping[str, frozenset[str]] = {}


class Group(msgspec.Struct, kw_only=True):
    """Sums of one group and currency. Tokens and charge are of winning attempts, cost is of all."""

    by: tuple[str, ...]  # as in group_by; `day` is a date, `hour` the RFC 3339 UTC start
    currency: str
    requests: int = 0
    attempts: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    uncharged_tokens: int = 0  # of attempts that did not win
    charge_picos: int = 0
    cost_picos: int = 0
    lost_cost_picos: int = 0  # inside cost_picos: of attempts that did not win


class TooManyGroupsError(ValueError):
    """The question has more answers than fit one; ask for less time or fewer dimensions."""


def known_dimension(name: str) -> bool:
    return (
        name in DIMENSIONS
        or name in (*TIMES, *CENTERS, END_USER)
        or _TAG.fullmatch(name) is not None
    )


def report(engine: Engine, question: Question) -> list[Group]:
    """Groups in the order of their values. TooManyGroupsError beyond MOST_GROUPS."""
    with reading(engine) as connection:
        zones, centers = _zones(connection), _Centers(connection)
        groups: dict[tuple[str, ...], Group] = {}
        for row in _sums(connection, question):
            by = _labels(question.group_by, row, zones, centers)
            group = groups.setdefault(
                (*by, row["currency"]), Group(by=by, currency=row["currency"])
            )
            _add(group, row)
            if len(groups) > MOST_GROUPS:
                raise TooManyGroupsError(
                    f"more than {MOST_GROUPS} groups; ask for a shorter time or fewer dimensions"
                )
    return [groups[key] for key in sorted(groups)]


def _sums(connection: Connection, question: Question) -> Iterator[Mapping[str, Any]]:
    whole_buckets = question.start_us % BUCKET_US == 0 and question.end_us % BUCKET_US == 0
    of_rows = {
        name: _of_row(connection.dialect.name, name)
        for name in question.group_by
        if name == END_USER or name.startswith("tag:")
    }
    if whole_buckets and not of_rows and END_USER not in question.filters:
        return _select(connection, question, rolled, rolled.c.bucket_us, {})
    return _select(connection, question, usage_rows, usage_rows.c.admitted_at_us, of_rows)


def _select(
    connection: Connection,
    question: Question,
    table: FromClause,
    at_us: ColumnElement[int],
    of_rows: Mapping[str, ColumnElement[Any]],
) -> Iterator[Mapping[str, Any]]:
    keys: dict[str, ColumnElement[Any]] = {
        name: table.c[DIMENSIONS[name]] for name in question.group_by if name in DIMENSIONS
    }
    keys |= of_rows
    if any(name in (*TIMES, *CENTERS) for name in question.group_by):
        keys["tenant"] = table.c.tenant_id  # whose zone decides what a day is
        keys["bucket"] = at_us - at_us % BUCKET_US
    if any(name in CENTERS for name in question.group_by):
        keys["team"] = table.c.team_id
    keys["currency"] = table.c.currency
    keys["winner"] = table.c.winner
    charge, cost = (
        exact_sum(connection.dialect.name, column)
        for column in (table.c.charge_picos, table.c.cost_picos)
    )
    one = case((table.c.hold == "reversed", -1), else_=1) if table is usage_rows else None
    figures = [
        func.sum(table.c.attempts if one is None else one),
        *(func.sum(table.c[name]) for name in _METERS),
        *charge,
        *cost,
    ]
    names = ("attempts", *_METERS, "charge_high", "charge_low", "cost_high", "cost_low")
    found = connection.execution_options(stream_results=True).execute(
        select(
            *(value.label(f"key{n}") for n, value in enumerate(keys.values())),
            *(figure.label(name) for figure, name in zip(figures, names, strict=True)),
        )
        .where(at_us >= question.start_us, at_us < question.end_us)
        .where(*(table.c[name] == value for name, value in question.filters.items()))
        .where(*(table.c[name].in_(values) for name, values in question.within.items()))
        .group_by(*(text_column(f"key{n}") for n in range(len(keys))))
    )
    columns = (*keys, *names)
    return (dict(zip(columns, row, strict=True)) for row in found)


def _of_row(dialect: str, dimension: str) -> ColumnElement[Any]:
    """What only usage rows have: whom a request was for, or the value of one client tag. Empty
    where nobody was named, or it carried no tag of that name.
    """
    found: ColumnElement[Any]
    name = dimension.removeprefix("tag:")
    if dimension == END_USER:
        found = usage_rows.c.end_user
    elif dialect == "postgresql":
        found = usage_rows.c.tags.op("::json ->>")(name)
    else:
        found = func.json_extract(usage_rows.c.tags, f'$."{name}"')
    return func.coalesce(found, "")


class _Centers:
    """Cost centres of every tenant that is asked for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, CostCenters] = {}

    def label(self, name: str, row: Mapping[str, Any]) -> str:
        tenant_id = row["tenant"]
        if tenant_id not in self._known:
            self._known[tenant_id] = CostCenters(self._connection, tenant_id)
        known = self._known[tenant_id]
        if name == "cost_center_now":
            return known.now(row["team"])
        return known.at(row["team"], int(row["bucket"]))


def _labels(
    group_by: Sequence[str],
    row: Mapping[str, Any],
    zones: Mapping[str, ZoneInfo],
    centers: _Centers,
) -> tuple[str, ...]:
    def label(name: str) -> str:
        if name in TIMES:
            return _time_label(name, row["bucket"], zones.get(row["tenant"], _UTC))
        return centers.label(name, row) if name in CENTERS else str(row[name])

    return tuple(map(label, group_by))


_UTC: Final = ZoneInfo("UTC")


def _time_label(name: str, bucket_us: int, zone: ZoneInfo) -> str:
    day = window("day", zone, int(bucket_us))
    if name == "day":
        return day.id.removeprefix("d")
    # Clocks move by halves or whole hours at most a day, so hours counted from the local midnight
    # begin where the clock's hours begin, and none is shown twice.
    hour_us = 3_600_000_000
    return rfc3339(int(bucket_us) - (int(bucket_us) - day.start_us) % hour_us)


def _add(group: Group, row: Mapping[str, Any]) -> None:
    group.attempts += int(row["attempts"])
    group.cost_picos += whole(row["cost_high"], row["cost_low"])
    if not row["winner"]:
        group.uncharged_tokens += sum(int(row[name]) for name in _METERS)
        group.lost_cost_picos += whole(row["cost_high"], row["cost_low"])
        return
    group.requests += int(row["attempts"])
    group.input_tokens += int(row["input_tokens"])
    group.cache_read_tokens += int(row["cache_read_tokens"])
    group.cache_write_tokens += int(row["cache_write_5m_tokens"] + row["cache_write_1h_tokens"])
    group.output_tokens += int(row["output_tokens"])
    group.charge_picos += whole(row["charge_high"], row["charge_low"])


def _zones(connection: Connection) -> dict[str, ZoneInfo]:
    found = connection.execute(select(tenants.c.id, tenants.c.timezone))
    return {row.id: ZoneInfo(row.timezone) for row in found}
