"""The ledger: usage rows under unique event ids, and estimates taken back when the truth comes.

A model of stores/sql/usage.py and corrections.py; a differential test holds the two together on
SQLite and PostgreSQL.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from billing.meters import Meters
from billing.usage import UNKNOWN_ATTEMPT, UsageEvent
from gateway.stores.sql.spent import Asked
from tests.simulator.kernel import Peer

Delivered = tuple[UsageEvent, bool]


class Ledger(Peer):
    """`rows` by event id, in the order they were booked; a row is the event with its final word on
    the hold.
    """

    def __init__(self) -> None:
        self.rows: dict[str, UsageEvent] = {}
        self.of_request: dict[str, list[UsageEvent]] = {}
        self.epoch = 0  # the newest of the store's counters
        self.on_epoch: Callable[[int], None] = lambda _number: None

    def record(self, delivered: Sequence[Delivered]) -> int:
        """As usage.record: one transaction, repeated deliveries change nothing."""
        by_id: dict[str, Delivered] = {}
        for event, found in delivered:
            known = by_id.get(event.event_id)
            if known is None or (known[0].hold == "estimated" != event.hold):
                by_id[event.event_id] = (event, found)
        events = [by_id[id_] for id_ in sorted(by_id)]
        firm = [each for each in events if not _is_weak(each[0])]
        new = self._insert(firm)
        corrections = self._insert(self._corrections(firm, new))
        weak = [
            each
            for each in events
            if _is_weak(each[0]) and each[1] and each[0].request_id not in self.of_request
        ]
        return len(new) + len(corrections) + len(self._insert(weak))

    def missing(self, event_ids: Collection[str]) -> set[str]:
        return {id_ for id_ in event_ids if id_ not in self.rows}

    def unbooked(self, events: Sequence[UsageEvent]) -> list[UsageEvent]:
        return [
            event
            for event in events
            if event.event_id not in self.rows
            and not (_is_weak(event) and event.request_id in self.of_request)
        ]

    def ended(
        self, request_ids: Collection[str], journaled: Iterable[UsageEvent]
    ) -> dict[str, tuple[int, int]]:
        """As usage.ended: what is counted for each request that is known, money and tokens."""
        found = {}
        for request_id in request_ids:
            rows = self.of_request.get(request_id)
            if rows is not None:
                money = sum(row.counter_nanos for row in rows)
                found[request_id] = money, sum(row.usage.total for row in rows if row.winner)
        unbooked = {event.event_id: event for event in journaled if event.event_id not in self.rows}
        for event in unbooked.values():
            money, tokens = found.get(event.request_id, (0, 0))
            more = event.usage.total if event.winner else 0
            found[event.request_id] = money + event.counter_nanos, tokens + more
        return found

    def totals(self, asked: Collection[Asked], journaled: Iterable[UsageEvent]) -> dict[Asked, int]:
        """As spent.totals: what was spent of each figure, by rows and by unbooked events."""
        unbooked = {event.event_id: event for event in journaled if event.event_id not in self.rows}
        events = [*self.rows.values(), *unbooked.values()]
        return {one: sum(_amount(one, event) for event in events) for one in asked}

    def remembered(self) -> int:
        return self.epoch

    def begin(self, seen: int) -> int:
        """As epochs.begin: the number of the next epoch of the store's counters."""
        self.epoch = max(self.epoch, seen) + 1
        self.on_epoch(self.epoch)
        return self.epoch

    def _insert(self, delivered: Sequence[Delivered]) -> set[str]:
        new = set()
        for event, found in delivered:
            if event.event_id in self.rows:
                continue
            due = event.hold == "settled" and event.counter_nanos > 0
            row = _with(event, hold="absent") if due and not found else event
            self.rows[row.event_id] = row
            self.of_request.setdefault(row.request_id, []).append(row)
            new.add(row.event_id)
        return new

    def _corrections(self, delivered: Sequence[Delivered], new: set[str]) -> list[Delivered]:
        late = {
            event.event_id: event
            for event, _ in delivered
            if event.event_id not in new and event.hold != "estimated"
        }
        requests = {event.request_id for event, _ in delivered}
        asked = {*late, *(f"{request_id}:{UNKNOWN_ATTEMPT}" for request_id in requests)}
        rows = [self.rows[id_] for id_ in sorted(asked) if id_ in self.rows]
        wrong = [row for row in rows if row.hold == "estimated"]
        taken_back = [(_reversed(row), False) for row in wrong]
        truths = [late[row.event_id] for row in wrong if row.event_id in late]
        return [
            *taken_back,
            *((_with(event, event_id=f"{event.event_id}:late"), False) for event in truths),
        ]


def _amount(asked: Asked, event: UsageEvent) -> int:
    scopes = (event.tenant_id, *event.team_path, event.key_id)
    start_us, end_us = asked.span
    if asked.scope_id not in scopes or not start_us <= event.admitted_at_us < end_us:
        return 0
    if not asked.tokens:
        return event.counter_nanos
    return event.usage.total if event.winner else 0


def _is_weak(event: UsageEvent) -> bool:
    return event.attempt == UNKNOWN_ATTEMPT and event.hold == "estimated"


def _reversed(row: UsageEvent) -> UsageEvent:
    return _with(
        row,
        event_id=f"{row.event_id}:reversed",
        usage=Meters(*(-tokens for tokens in msgspec.structs.astuple(row.usage))),
        charge_picos=-row.charge_picos,
        cost_picos=-row.cost_picos,
        counter_nanos=-row.counter_nanos,
        hold="reversed",
    )


def _with(event: UsageEvent, **changes: object) -> UsageEvent:
    return msgspec.structs.replace(event, **changes)
