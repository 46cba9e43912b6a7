"""Usage request by request: every attempt with its provenance and both counts, newest last."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, Select, select, tuple_

from billing.meters import Meters
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows

FILTERS: Final = (
    "tenant_id",
    "team_id",
    "key_id",
    "model",
    "backend_id",
    "region",
    "request_id",
    "provenance",
    "end_user",
)

Cursor = tuple[int, str]  # admission and id of the last request of a page


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One usage row. Times in microseconds, money in picos."""

    event_id: str
    request_id: str
    attempt: int
    winner: bool
    tenant_id: str
    team_id: str
    key_id: str
    model: str
    backend_id: str
    upstream_model: str
    region: str
    operation: str
    stream: bool
    admitted_at_us: int
    finished_at_us: int
    recorded_at_us: int
    ttft_us: int
    duration_us: int
    usage: Meters
    reasoning_tokens: int
    provenance: str
    reported: Meters | None
    counted: Meters | None
    currency: str
    charge_card: str
    cost_card: str | None
    charge_picos: int
    cost_picos: int
    status: int
    end_by: str
    end_phase: str
    tags: dict[str, str]
    hold: str
    shadow_of: str  # empty: nobody's
    end_user: str | None  # a subject of `end_users`
    service_tier: str | None  # None, as the next two: the standard one, asked for and served
    tier_asked: str | None
    tier_served: str | None  # in the backend's own word


def page(
    engine: Engine,
    *,
    start_us: int,
    end_us: int,
    filters: Mapping[str, str],
    after: Cursor | None,
    limit: int,
    within: Mapping[str, frozenset[str]] | None = None,
) -> list[list[Attempt]]:
    """Requests admitted in [start, end) in the order of their admission, each with its attempts.
    `within` says by column which values are in sight, where not all are.

    A filter picks requests of which an attempt matches; all their attempts come with them.
    """
    with reading(engine) as connection:
        return page_of(
            connection,
            start_us=start_us,
            end_us=end_us,
            filters=filters,
            after=after,
            limit=limit,
            within=within,
        )


def page_of(
    connection: Connection,
    *,
    start_us: int,
    end_us: int,
    filters: Mapping[str, str],
    after: Cursor | None,
    limit: int,
    within: Mapping[str, frozenset[str]] | None = None,
) -> list[list[Attempt]]:
    """`page`, in the caller's view."""
    seen = [usage_rows.c[name].in_(values) for name, values in (within or {}).items()]
    requests = _requests(connection, start_us, end_us, filters, after, limit, seen)
    by_request: dict[str, list[Attempt]] = {request_id: [] for _, request_id in requests}
    rows = connection.execute(_attempts(list(by_request))).mappings()
    for row in rows:
        by_request[row["request_id"]].append(attempt_of(row))
    return list(by_request.values())


def _requests(
    connection: Connection,
    start_us: int,
    end_us: int,
    filters: Mapping[str, str],
    after: Cursor | None,
    limit: int,
    seen: Sequence[ColumnElement[bool]],
) -> Sequence[Any]:
    at_us, request_id = usage_rows.c.admitted_at_us, usage_rows.c.request_id
    query = (
        select(at_us, request_id)
        .distinct()
        .where(at_us >= start_us, at_us < end_us)
        .filter_by(**filters)
        .where(*seen)
        .order_by(at_us, request_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(at_us, request_id) > after)
    return connection.execute(query).all()


def _attempts(request_ids: Sequence[str]) -> Select[Any]:
    return (
        select(usage_rows)
        .where(usage_rows.c.request_id.in_(request_ids))
        .order_by(usage_rows.c.request_id, usage_rows.c.attempt)
    )


def attempt_of(row: RowMapping) -> Attempt:
    same = {name: row[name] for name in Attempt.__struct_fields__ if name in row}
    return Attempt(
        **same
        | {
            "usage": Meters(
                row["input_tokens"],
                row["cache_read_tokens"],
                row["cache_write_5m_tokens"],
                row["cache_write_1h_tokens"],
                row["output_tokens"],
            ),
            "reported": _meters(row["reported"]),
            "counted": _meters(row["counted"]),
            "tags": msgspec.json.decode(row["tags"], type=dict[str, str]),
        }
    )


def _meters(text: str | None) -> Meters | None:
    return None if text is None else msgspec.json.decode(text, type=Meters)
