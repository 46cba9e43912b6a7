"""What was spent within spans of time, by whatever scope: the figures that counters must have."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, and_, case, func, literal, select

from billing.usage import UsageEvent
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from gateway.stores.sql.usage import TOKENS, missing_of

_AT_ONCE: Final = 500  # tenants a query

Span = tuple[int, int]  # start_us <= admitted < end_us
Figure = tuple[Span, bool]  # and whether tokens are asked for
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
        for tenants, figures in _alike(found):
            _add_booked(connection, tenants, figures, wanted, found)
        unbooked = missing_of(connection, {event.event_id for event in journaled})
    for event in journaled:
        if event.event_id in unbooked:
            unbooked.remove(event.event_id)  # an event may be in the journal twice
            tokens = event.usage.total if event.winner else 0
            for one in _on(event.tenant_id, event.team_path, event.key_id, wanted):
                if one.span[0] <= event.admitted_at_us < one.span[1]:
                    found[one] += tokens if one.tokens else event.counter_nanos
    return found


def _alike(asked: Iterable[Asked]) -> Iterable[tuple[list[str], Sequence[Figure]]]:
    """Tenants of whom the same is asked: one look at their rows answers for all of them."""
    figures: dict[str, set[Figure]] = {}
    for one in asked:
        figures.setdefault(one.tenant_id, set()).add((one.span, one.tokens))
    groups: dict[tuple[Figure, ...], list[str]] = {}
    for tenant_id, found in figures.items():
        groups.setdefault(tuple(sorted(found)), []).append(tenant_id)
    for shared, tenants in groups.items():
        for start in range(0, len(tenants), _AT_ONCE):
            yield tenants[start : start + _AT_ONCE], shared


def _add_booked(
    connection: Connection,
    tenants: Sequence[str],
    figures: Sequence[Figure],
    wanted: Mapping[Scope, list[Asked]],
    found: dict[Asked, int],
) -> None:
    of = usage_rows.c
    whole = min(start for (start, _), _ in figures), max(end for (_, end), _ in figures)
    rows = connection.execute(
        select(of.tenant_id, of.team_path, of.key_id, *(_sum(one, whole) for one in figures))
        .where(
            of.tenant_id.in_(tenants),
            of.admitted_at_us >= whole[0],
            of.admitted_at_us < whole[1],
        )
        .group_by(of.tenant_id, of.team_path, of.key_id)
    )
    place = {figure: number for number, figure in enumerate(figures)}
    for tenant_id, team_path, key_id, *sums in rows:
        for one in _on(tenant_id, team_path.split("/"), key_id, wanted):
            found[one] += int(sums[place[one.span, one.tokens]])


def _sum(figure: Figure, whole: Span) -> ColumnElement[int]:
    """The database looks at each row for each condition: none is asked without need."""
    of, (span, tokens) = usage_rows.c, figure
    conditions = [of.admitted_at_us >= span[0]] if span[0] != whole[0] else []
    conditions += [of.admitted_at_us < span[1]] if span[1] != whole[1] else []
    conditions += [of.winner] if tokens else []
    amount = sum((of[name] for name in TOKENS), start=literal(0)) if tokens else of.counter_nanos
    return func.sum(case((and_(*conditions), amount), else_=0) if conditions else amount)


def _on(
    tenant_id: str, team_path: Sequence[str], key_id: str, wanted: Mapping[Scope, list[Asked]]
) -> Iterable[Asked]:
    """The figures that a request of this key is part of."""
    yield from wanted.get((tenant_id, "tenant", tenant_id), ())
    for team_id in team_path:
        yield from wanted.get((tenant_id, "team", team_id), ())
    yield from wanted.get((tenant_id, "key", key_id), ())
