"""Usage rows: one for every attempt that could have reached a backend (L4), written once."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, select

from billing.rating import rate
from billing.usage import VERSION, UsageEvent
from gateway import clock
from gateway.stores.sql import ledger, rate_cards, rollups
from gateway.stores.sql.bulk import Row, insert_new
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.tables import usage_rows

_JSON = msgspec.json.Encoder(order="deterministic")
_LOOK_UP_AT_ONCE = 5_000


class UnfitEventError(ValueError):
    """An event that the ledger refuses: its money is not what its own prices say, or its version is
    newer than this release. It must be set aside and looked at, not tried again.
    """


def record(engine: Engine, events: Sequence[tuple[UsageEvent, bool]]) -> int:
    """Book the events that are not in the ledger yet; answers how many those were.

    Each event comes with whether its hold was found. One transaction: rate cards, usage rows,
    rollups and postings appear together or not at all; a repeated delivery changes nothing.
    UnfitEventError, CardConflictError or the database's own error: nothing was booked.
    """
    by_id: dict[str, tuple[UsageEvent, bool]] = {}
    for event, hold_found in events:
        check(event)
        by_id.setdefault(event.event_id, (event, hold_found))
    with transaction(engine) as connection:
        return len(_book(connection, by_id))


def _book(
    connection: Connection, by_id: dict[str, tuple[UsageEvent, bool]]
) -> Sequence[UsageEvent]:
    recorded_at_us = clock.now_us()
    rate_cards.put(connection, _cards(event for event, _ in by_id.values()))
    ordered = [by_id[id_] for id_ in sorted(by_id)]
    rows = [_row(event, hold_found, recorded_at_us) for event, hold_found in ordered]
    new_ids = insert_new(connection, usage_rows, rows)
    new = [event for event, _ in ordered if event.event_id in new_ids]
    rollups.add(connection, new)
    ledger.post(connection, new)
    return new


def missing(engine: Engine, event_ids: Collection[str]) -> set[str]:
    """Those of the ids that the ledger does not have."""
    wanted = list(event_ids)
    found: set[str] = set()
    with reading(engine) as connection:
        for start in range(0, len(wanted), _LOOK_UP_AT_ONCE):
            some = wanted[start : start + _LOOK_UP_AT_ONCE]
            ids = select(usage_rows.c.event_id).where(usage_rows.c.event_id.in_(some))
            found.update(connection.scalars(ids))
    return set(wanted) - found


def check(event: UsageEvent) -> None:
    """UnfitEventError when the event says what cannot be."""
    if event.v > VERSION:
        raise UnfitEventError(
            f"{event.event_id}: event version {event.v}; this release reads up to {VERSION}"
        )
    cards = (event.charge_card, event.cost_card or event.charge_card)
    if any(card.currency != event.currency for card in cards):
        raise UnfitEventError(f"{event.event_id}: its cards are not all in {event.currency}")
    charge = rate(event.usage, event.charge_card) if event.winner else 0
    if event.charge_picos != charge:
        raise UnfitEventError(
            f"{event.event_id}: charge of {event.charge_picos} picos; its card makes it {charge}"
        )
    cost = rate(event.usage, event.cost_card) if event.cost_card else 0
    if event.cost_picos != cost:
        raise UnfitEventError(
            f"{event.event_id}: cost of {event.cost_picos} picos; its card makes it {cost}"
        )


def _cards(events: Iterable[UsageEvent]) -> list[Any]:
    cards = {}
    for event in events:
        cards[id(event.charge_card)] = event.charge_card
        if event.cost_card is not None:
            cards[id(event.cost_card)] = event.cost_card
    return list(cards.values())


def _row(event: UsageEvent, hold_found: bool, recorded_at_us: int) -> Row:
    """In the order of the table's columns."""
    usage = event.usage
    return (
        event.event_id,
        event.request_id,
        event.attempt,
        event.winner,
        event.tenant_id,
        event.team_path[-1],
        "/".join(event.team_path),
        event.key_id,
        event.model,
        event.backend_id,
        event.upstream_model,
        event.region,
        event.operation,
        event.stream,
        event.admitted_at_us,
        event.finished_at_us,
        recorded_at_us,
        event.ttft_us,
        event.duration_us,
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        event.reasoning,
        event.provenance.value,
        None if event.reported is None else _JSON.encode(event.reported).decode(),
        None if event.counted is None else _JSON.encode(event.counted).decode(),
        event.currency,
        event.charge_card.id,
        None if event.cost_card is None else event.cost_card.id,
        event.charge_picos,
        event.cost_picos,
        event.counter_nanos,
        event.status,
        event.end_by,
        event.end_phase,
        _JSON.encode(event.tags).decode(),
        _hold(event, hold_found),
    )


def _hold(event: UsageEvent, hold_found: bool) -> str:
    """`absent`: a counter was due and none was touched. An attempt that lost is due none."""
    due = event.hold == "settled" and event.counter_nanos > 0
    return "absent" if due and not hold_found else event.hold
