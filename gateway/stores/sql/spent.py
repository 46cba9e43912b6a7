"""What was spent within spans of time, by whatever scope: the figures that counters must have."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, Engine, and_, case, func, literal, select

from billing.usage import UsageEvent
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from gateway.stores.sql.usage import TOKENS, missing_of

_AT_ONCE: Final = 500  # tenants a query

Span = tuple[int, int]  # start_us <= admitted < end_us
Scope = tuple[str, str, str]  # tenant id, kind, id


class Asked(msgspec.Struct, frozen=True):
    """One figure that is wanted: counter units, or with `tokens` the tokens of what was won."""

    tenant_id: str
    scope_kind: str
    scope_id: str
    span: Span
    tokens: bool


def totals(
    engine: Engine, asked: Collection[Asked], journaled: Collection[UsageEvent]
) -> dict[Asked, int]:
    """Each figure as of one instant of the ledger, exact; those of `journaled` that it does not
    have are added.
    """
    found = dict.fromkeys(asked, 0)
    wanted: dict[Scope, list[Asked]] = {}
    for one in found:
        wanted.setdefault((one.tenant_id, one.scope_kind, one.scope_id), []).append(one)
    with reading(engine) as connection:
        for tenants, spans in _alike(found):
            _add_booked(connection, tenants, spans, wanted, found)
        unbooked = missing_of(connection, {event.event_id for event in journaled})
    for event in journaled:
        if event.event_id in unbooked:
            unbooked.remove(event.event_id)  # an event may be in the journal twice
            tokens = event.usage.total if event.winner else 0
            for one in _on(event.tenant_id, event.team_path, event.key_id, wanted):
                if one.span[0] <= event.admitted_at_us < one.span[1]:
                    found[one] += tokens if one.tokens else event.counter_nanos
    return found


def _alike(asked: Iterable[Asked]) -> Iterable[tuple[list[str], Sequence[Span]]]:
    """Tenants whose figures are of the same spans: one look at their rows answers all of them."""
    spans: dict[str, set[Span]] = {}
    for one in asked:
        spans.setdefault(one.tenant_id, set()).add(one.span)
    groups: dict[tuple[Span, ...], list[str]] = {}
    for tenant_id, found in spans.items():
        groups.setdefault(tuple(sorted(found)), []).append(tenant_id)
    for shared, tenants in groups.items():
        for start in range(0, len(tenants), _AT_ONCE):
            yield tenants[start : start + _AT_ONCE], shared


def _add_booked(
    connection: Connection,
    tenants: Sequence[str],
    spans: Sequence[Span],
    wanted: Mapping[Scope, list[Asked]],
    found: dict[Asked, int],
) -> None:
    of = usage_rows.c
    tokens = case((of.winner, sum((of[name] for name in TOKENS), start=literal(0))), else_=0)
    columns = []
    for start_us, end_us in spans:
        within = and_(of.admitted_at_us >= start_us, of.admitted_at_us < end_us)
        columns.append(func.sum(case((within, of.counter_nanos), else_=0)))
        columns.append(func.sum(case((within, tokens), else_=0)))
    rows = connection.execute(
        select(of.tenant_id, of.team_path, of.key_id, *columns)
        .where(
            of.tenant_id.in_(tenants),
            of.admitted_at_us >= min(start_us for start_us, _ in spans),
            of.admitted_at_us < max(end_us for _, end_us in spans),
        )
        .group_by(of.tenant_id, of.team_path, of.key_id)
    )
    place = {span: 2 * number for number, span in enumerate(spans)}
    for tenant_id, team_path, key_id, *sums in rows:
        for one in _on(tenant_id, team_path.split("/"), key_id, wanted):
            found[one] += int(sums[place[one.span] + one.tokens])


def _on(
    tenant_id: str, team_path: Sequence[str], key_id: str, wanted: Mapping[Scope, list[Asked]]
) -> Iterable[Asked]:
    """The figures that a request of this key is part of."""
    yield from wanted.get((tenant_id, "tenant", tenant_id), ())
    for team_id in team_path:
        yield from wanted.get((tenant_id, "team", team_id), ())
    yield from wanted.get((tenant_id, "key", key_id), ())
