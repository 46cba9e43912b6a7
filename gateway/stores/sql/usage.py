"""Usage rows: one for every attempt that could have reached a backend (L4), written once."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, Engine, case, func, literal, select

from billing.prices import RateCard
from billing.rating import Tariff, tariff
from billing.usage import VERSION, UsageEvent
from gateway import clock
from gateway.stores.sql import (
    conflicts,
    corrections,
    decisions,
    end_users,
    journal,
    ledger,
    rate_cards,
    rollups,
)
from gateway.stores.sql.bulk import Row, among, insert_new
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.exact import most_picos, require_room
from gateway.stores.sql.tables import usage_rows
from policies import facts
from policies.facts import Record

_LOG: Final = logging.getLogger(__name__)
_JSON = msgspec.json.Encoder(order="deterministic")
_LOOK_UP_AT_ONCE = 5_000
DEFAULT_CHAIN = "s00"
TOKENS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)


class UnfitEventError(ValueError):
    """An event that the ledger refuses: its money is not what its own prices say, its id is booked
    with something else, or its version is newer than this release. It must be set aside and looked
    at, not tried again.
    """


def record(
    engine: Engine, events: Sequence[tuple[UsageEvent, bool]], chain: str = DEFAULT_CHAIN
) -> int:
    """Book the events that are not in the ledger yet; answers how many those were. The decisions
    that come with them are sealed into `chain`, and so are the rows with their postings.

    Each event comes with whether its hold was found. One transaction: rate cards, usage rows,
    rollups and postings appear together or not at all; a repeated delivery changes nothing. An
    estimate that one of them proves wrong is taken back, which is a row as well. UnfitEventError,
    TooLargeError, CardConflictError or the database's own error: nothing was booked.
    """
    by_id: dict[str, tuple[UsageEvent, bool]] = {}
    tariffs = Tariffs()
    for event, hold_found in events:
        _require_fit(engine.dialect.name, event, tariffs)
        known = by_id.get(event.event_id)
        if known is not None:
            _require_agreement(conflicts.between(known[0], event))
        if known is None or (known[0].hold == "estimated" and event.hold != "estimated"):
            by_id[event.event_id] = (event, hold_found)
    with transaction(engine) as connection:
        corrections.one_at_a_time(connection, alone=corrections.may_correct(by_id.values()))
        now_us = clock.now_us()  # not before: what an invoice came too early for says so
        whose = end_users.with_subjects(connection, by_id)
        new = _book(connection, chain, whose, now_us)
        _seal(connection, chain, new, whose, now_us)
        return len(new)


def _seal(
    connection: Connection,
    chain: str,
    new: Sequence[UsageEvent],
    delivered: Mapping[str, tuple[UsageEvent, bool]],
    now_us: int,
) -> None:
    """One record a request. Where an estimate and the truth both come, the first one brings it."""
    bearing = {event.request_id: event for event in new if event.decision}
    corrected = {event.request_id for event in new if event.hold == "reversed"}
    late = [
        event.request_id
        for event in bearing.values()
        if event.hold != "settled"
        or event.request_id in corrected
        or not delivered[event.event_id][1]
    ]
    for request_id in _known_before(connection, late, [event.event_id for event in new]):
        del bearing[request_id]
    records = (record for event in bearing.values() if (record := _decision(event)) is not None)
    told = {facts.digest_of(event.standing): event.standing for event in new if event.standing}
    decisions.add(connection, chain, records, told, now_us)


def _decision(event: UsageEvent) -> Record | None:
    """None, and a line in the log, for one that cannot be read: the money must not wait for it."""
    try:
        decided = facts.DECODER.decode(event.decision)
    except msgspec.DecodeError as fault:
        _LOG.error("the decision on %s cannot be read: %s", event.request_id, fault)
        return None
    return Record(
        event.request_id, event.tenant_id, event.team_path, event.key_id, event.tags, decided
    )


def _known_before(
    connection: Connection, request_ids: Sequence[str], new_ids: Sequence[str]
) -> set[str]:
    if not request_ids:
        return set()
    of = usage_rows.c
    where = of.request_id.in_(request_ids) & of.event_id.not_in(new_ids)
    return set(connection.scalars(select(of.request_id).where(where)))


def _book(
    connection: Connection, chain: str, by_id: Mapping[str, tuple[UsageEvent, bool]], now_us: int
) -> list[UsageEvent]:
    delivered = [by_id[id_] for id_ in sorted(by_id)]
    # Without its hold a weak estimate is of something that has ended otherwise, or was released.
    weak = [each for each in delivered if corrections.is_weak(each[0]) and each[1]]
    firm = [each for each in delivered if not corrections.is_weak(each[0])]
    new = _booked(connection, chain, firm, now_us)
    new_ids = {event.event_id for event in new}
    new += _booked(connection, chain, corrections.rows(connection, firm, new_ids), now_us)
    return new + _booked(connection, chain, corrections.still_weak(connection, weak), now_us)


def _booked(
    connection: Connection,
    chain: str,
    delivered: Sequence[tuple[UsageEvent, bool]],
    recorded_at_us: int,
) -> list[UsageEvent]:
    """Those that were new, with all that belongs to them in the books. Sorted by their ids."""
    if not delivered:
        return []
    rate_cards.put(connection, _cards(delivered))
    rows = [_row(event, hold_found, recorded_at_us) for event, hold_found in delivered]
    new_ids = insert_new(connection, usage_rows, rows)
    repeated = [event for event, _ in delivered if event.event_id not in new_ids]
    _require_agreement(conflicts.booked(connection, repeated))
    new = [event for event, _ in delivered if event.event_id in new_ids]
    rollups.add(connection, new)
    entries = ledger.post(connection, new)
    sealed = [row for row in rows if row[0] in new_ids]
    journal.seal_usage(connection, chain, sealed, entries, recorded_at_us)
    return new


def correct(connection: Connection, chain: str, events: Iterable[UsageEvent], now_us: int) -> None:
    """Book corrections, in the caller's transaction, in which nobody else books. UnfitEventError
    for one that is not new, or that `check` refuses; TooLargeError.
    """
    ordered = sorted(events, key=lambda event: event.event_id)
    tariffs = Tariffs()
    for event in ordered:
        _require_fit(connection.dialect.name, event, tariffs)
    new = _booked(connection, chain, [(event, True) for event in ordered], now_us)
    if len(new) != len(ordered):
        raise UnfitEventError(f"{len(ordered) - len(new)} corrections are booked already")


def missing(engine: Engine, event_ids: Collection[str]) -> set[str]:
    """Those of the ids that the ledger does not have."""
    with reading(engine) as connection:
        return missing_of(connection, event_ids)


def unbooked(engine: Engine, events: Sequence[UsageEvent]) -> list[UsageEvent]:
    """Those that the ledger would book: it lacks them, and a weak estimate says nothing to it of a
    request that it knows more of.
    """
    weak = {event.request_id for event in events if corrections.is_weak(event)}
    with reading(engine) as connection:
        missing = missing_of(connection, [event.event_id for event in events])
        known = _counted(connection, list(weak)).keys() if weak else ()
    return [
        event
        for event in events
        if event.event_id in missing
        and not (event.request_id in known and corrections.is_weak(event))
    ]


def missing_of(connection: Connection, event_ids: Collection[str]) -> set[str]:
    found: set[str] = set()
    for some in _in_parts(event_ids):
        ids = select(usage_rows.c.event_id).where(among(connection, usage_rows.c.event_id, some))
        found.update(connection.scalars(ids))
    return set(event_ids) - found


def _in_parts(values: Collection[str]) -> Iterator[list[str]]:
    wanted = list(values)
    for start in range(0, len(wanted), _LOOK_UP_AT_ONCE):
        yield wanted[start : start + _LOOK_UP_AT_ONCE]


def ended(
    engine: Engine, request_ids: Collection[str], journaled: Collection[UsageEvent]
) -> dict[str, tuple[int, int]]:
    """What the requests of which anything is known were counted: counter units, and tokens.
    `journaled` are events that the ledger may not have yet.
    """
    found: dict[str, tuple[int, int]] = {}
    with reading(engine) as connection:
        for some in _in_parts(request_ids):
            found |= _counted(connection, some)
        unbooked = missing_of(connection, {event.event_id for event in journaled})
    for event in journaled:
        if event.event_id in unbooked:
            unbooked.remove(event.event_id)  # an event may be in the journal twice
            money, tokens = found.get(event.request_id, (0, 0))
            more = event.usage.total if event.winner else 0
            found[event.request_id] = money + event.counter_nanos, tokens + more
    return found


def _counted(connection: Connection, request_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    of = usage_rows.c
    tokens = case((of.winner, sum((of[name] for name in TOKENS), start=literal(0))), else_=0)
    rows = connection.execute(
        select(of.request_id, func.sum(of.counter_nanos), func.sum(tokens))
        .where(among(connection, of.request_id, request_ids))
        .group_by(of.request_id)
    )
    return {request_id: (int(money), int(count)) for request_id, money, count in rows}


def _require_agreement(fault: str | None) -> None:
    if fault is not None:
        raise UnfitEventError(fault)


def _require_fit(dialect: str, event: UsageEvent, tariffs: "Tariffs") -> None:
    check(event, tariffs)
    most = most_picos(dialect)
    if most is None or (abs(event.charge_picos) <= most and abs(event.cost_picos) <= most):
        return
    for name, picos in (("charge", event.charge_picos), ("cost", event.cost_picos)):
        require_room(dialect, picos, f"the {name} of {event.event_id}")


class Tariffs:
    """What the cards of one delivery come to: there are few."""

    def __init__(self) -> None:
        self._met: dict[str, tuple[RateCard, Tariff]] = {}

    def of(self, card: RateCard) -> Tariff:
        met = self._met.get(card.id)
        if met is not None and (met[0] is card or met[0] == card):
            return met[1]
        made = tariff(card)  # a namesake that differs is rated as what it is
        self._met[card.id] = (card, made)
        return made


def check(event: UsageEvent, tariffs: Tariffs) -> None:
    """UnfitEventError when the event says what cannot be."""
    if event.v > VERSION:
        raise UnfitEventError(
            f"{event.event_id}: event version {event.v}; this release reads up to {VERSION}"
        )
    cost_card = event.cost_card or event.charge_card
    if not event.charge_card.currency == cost_card.currency == event.currency:
        raise UnfitEventError(f"{event.event_id}: its cards are not all in {event.currency}")
    charge = tariffs.of(event.charge_card).of(event.usage) if event.winner else 0
    if event.charge_picos != charge:
        raise UnfitEventError(
            f"{event.event_id}: charge of {event.charge_picos} picos; its card makes it {charge}"
        )
    cost = tariffs.of(event.cost_card).of(event.usage) if event.cost_card else 0
    if event.cost_picos != cost:
        raise UnfitEventError(
            f"{event.event_id}: cost of {event.cost_picos} picos; its card makes it {cost}"
        )


def _cards(delivered: Iterable[tuple[UsageEvent, bool]]) -> Iterable[RateCard]:
    """Each once where the events share them."""
    found: dict[int, RateCard] = {}
    for event, _ in delivered:
        found[id(event.charge_card)] = event.charge_card
        if event.cost_card is not None:
            found[id(event.cost_card)] = event.cost_card
    return found.values()


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
        event.shadow_of,
        event.end_user,
        event.service_tier,
        event.tier_asked,
        event.tier_served,
    )


def _hold(event: UsageEvent, hold_found: bool) -> str:
    """`absent`: a counter was due and none was touched. An attempt that lost is due none."""
    due = event.hold == "settled" and event.counter_nanos > 0
    return "absent" if due and not hold_found else event.hold
