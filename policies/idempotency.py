"""Idempotency keys: the executable model of what the scripts do with them.

A *ticket* is an idempotency key as one request presents it. Whoever is admitted with it first has
it; everybody else is answered with a *replay* of what became of the first. While the first one's
hold lives, it is in flight; afterwards it is finished, however it ended: a dead worker's hold is
reaped like any other, so no state of its own has to be kept. A request that provably led to nothing
gives its ticket back.

Times are milliseconds of the store's clock.
"""

from collections.abc import Container, Mapping
from typing import Final

import msgspec

IN_FLIGHT: Final = "in_flight"
FINISHED: Final = "finished"
OTHER_BODY: Final = "other_body"
DROPPED_AT_ONCE: Final = 64  # a script's work has a bound; what is left is dropped by the next
ANSWER_OVERHEAD: Final = 512  # bytes that the store spends on an answer beside its own


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """`index` names the application key's tickets in the store, `name` this one among them.

    `fingerprint` is of the request it came with. Both are 32 characters. It is remembered for
    `ttl_ms`, and for as long as its request is in flight; an application key may have `most` (at
    least one) at a time.
    """

    index: str
    name: str
    fingerprint: str
    ttl_ms: int
    most: int

    @property
    def key(self) -> str:
        return f"{self.index}:{self.name}"


class Replay(msgspec.Struct, frozen=True):
    """What became of the request that has this ticket. `answer` is as it was kept, empty: none."""

    state: str  # in_flight | finished | other_body
    request_id: str
    answer: bytes = b""


class Keeping(msgspec.Struct, frozen=True, array_like=True):
    """An answer to be kept for those who come with the same ticket. At most `most_bytes` are kept
    for all tickets of the tag; the oldest make room.
    """

    index: str
    name: str
    hold_id: str
    ttl_ms: int
    most_bytes: int
    answer: bytes

    @property
    def ticket_key(self) -> str:
        return f"{self.index}:{self.name}"


class Taken(msgspec.Struct, frozen=True):
    """A ticket in somebody's hands."""

    expiry_ms: int
    fingerprint: str
    hold_id: str


class Kept(msgspec.Struct, frozen=True):
    """A stored answer."""

    expiry_ms: int
    answer: bytes

    @property
    def size(self) -> int:
        return len(self.answer) + ANSWER_OVERHEAD


class Tickets(msgspec.Struct, frozen=True):
    """Everything the scripts keep about tickets of one tag."""

    taken: Mapping[str, Taken] = {}  # by ticket key
    index: Mapping[str, Mapping[str, int]] = {}  # index -> ticket name -> expiry
    answers: Mapping[str, Kept] = {}  # by `answer_key`

    @property
    def bytes_kept(self) -> int:
        """What the answers count against `Keeping.most_bytes`, expired ones included."""
        return sum(kept.size for kept in self.answers.values())


def answer_key(index: str, hold_id: str) -> str:
    return f"{index}:answer:{hold_id}"


def replay(tickets: Tickets, ticket: Ticket, living: Container[str], now_ms: int) -> Replay | None:
    """None: the ticket is free. `living` are the ids of holds that have not ended."""
    taken = tickets.taken.get(ticket.key)
    if taken is None:
        return None
    lives = taken.hold_id in living
    if taken.expiry_ms <= now_ms and not lives:
        return None
    if taken.fingerprint != ticket.fingerprint:
        return Replay(OTHER_BODY, taken.hold_id)
    if lives:
        return Replay(IN_FLIGHT, taken.hold_id)
    kept = tickets.answers.get(answer_key(ticket.index, taken.hold_id))
    alive = kept is not None and kept.expiry_ms > now_ms
    return Replay(FINISHED, taken.hold_id, kept.answer if kept is not None and alive else b"")


def crowded_ms(tickets: Tickets, ticket: Ticket, now_ms: int) -> int:
    """How long until the application key may have another ticket; 0: now."""
    living = [ms for ms in tickets.index.get(ticket.index, {}).values() if ms > now_ms]
    return min(living) - now_ms if len(living) >= ticket.most else 0


def taken(tickets: Tickets, ticket: Ticket, hold_id: str, now_ms: int) -> Tickets:
    """The ticket is in this hold's hands."""
    expiry_ms = now_ms + ticket.ttl_ms
    names = dict(tickets.index.get(ticket.index, {}))
    expired = sorted((ms, name) for name, ms in names.items() if ms <= now_ms)
    for _, name in expired[:DROPPED_AT_ONCE]:
        del names[name]
    names[ticket.name] = expiry_ms
    return msgspec.structs.replace(
        tickets,
        taken={**tickets.taken, ticket.key: Taken(expiry_ms, ticket.fingerprint, hold_id)},
        index={**tickets.index, ticket.index: names},
    )


def given_back(tickets: Tickets, ticket: Ticket | None, hold_id: str) -> Tickets:
    """The hold led to nothing: whoever comes next may have the ticket."""
    held = tickets.taken.get(ticket.key) if ticket is not None else None
    if ticket is None or held is None or held.hold_id != hold_id:
        return tickets
    names = tickets.index.get(ticket.index, {})
    return msgspec.structs.replace(
        tickets,
        taken={key: one for key, one in tickets.taken.items() if key != ticket.key},
        index={
            **tickets.index,
            ticket.index: {name: ms for name, ms in names.items() if name != ticket.name},
        },
    )


def keep(tickets: Tickets, keeping: Keeping, now_ms: int) -> tuple[Tickets, bool]:
    """Store the answer beside its ticket; False: it is too large, or the ticket is not its own."""
    held = tickets.taken.get(keeping.ticket_key)
    if held is None or held.hold_id != keeping.hold_id or held.expiry_ms <= now_ms:
        return tickets, False
    key = answer_key(keeping.index, keeping.hold_id)
    if key in tickets.answers:
        return tickets, True
    kept = Kept(min(now_ms + keeping.ttl_ms, held.expiry_ms), keeping.answer)
    if kept.size > keeping.most_bytes:
        return tickets, False
    answers = _with_room(tickets.answers, kept.size, keeping.most_bytes, now_ms)
    fits = sum(one.size for one in answers.values()) + kept.size <= keeping.most_bytes
    if fits:
        answers[key] = kept
    return msgspec.structs.replace(tickets, answers=answers), fits


def _with_room(
    answers: Mapping[str, Kept], size: int, most_bytes: int, now_ms: int
) -> dict[str, Kept]:
    """Without what has expired; then without the oldest, until so much more fits or enough work
    was done.
    """
    left = dict(answers)
    total = sum(one.size for one in left.values())
    oldest = sorted(left, key=lambda key: (left[key].expiry_ms, key))
    for key in oldest[:DROPPED_AT_ONCE]:
        if left[key].expiry_ms > now_ms and total + size <= most_bytes:
            break
        total -= left.pop(key).size
    return left
