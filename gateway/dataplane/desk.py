"""One backend that takes only so many requests at a time, as one worker sees it: the slots that the
store has lent us, what is in them, and what waits for one.

Makes no call itself: `asks` says what the store is to be told, `told` what it has answered.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from gateway import clock
from policies.fair_queue import FairQueue, Line, charged
from policies.slot_leases import NOBODY, Rival, Shared, SlotsAsked, behind, slack

LEASE_MS: Final = 5_000  # after which the slots of a worker that is gone are others'
MARGIN_US: Final = 500_000
RENEW_US: Final = 1_000_000
LOOK_AGAIN_US: Final = 50_000  # while somebody waits here
LEAST_BETWEEN_US: Final = 5_000
AWAY_AGAIN_US: Final = 200_000
FORGOTTEN_US: Final = 60_000_000  # a desk without any request gives its slots back
MOST_HEADS: Final = 16
MOST_LINES: Final = 64
MOST_SPARE: Final = 64


class Waiting(Protocol):
    """A request that waits, at one desk or several. `tokens`: what it may cost, weighted;
    `weight`: of its team.
    """

    line: Line
    tokens: int
    weight: int
    since_us: int

    def seated(self, turn: "Turn") -> None: ...


class Turn:
    """A slot with a request in it, until `over`."""

    __slots__ = ("_later", "_line", "_over", "_tokens", "_weight", "desk")

    def __init__(self, desk: "Desk", line: Line, tokens: int, weight: int, later: "Later") -> None:
        self.desk = desk
        self._line = line
        self._tokens = tokens  # that it was charged for
        self._weight = weight
        self._later = later
        self._over = False

    def over(self, tokens: int | None = None, *, after_s: float = 0.0) -> None:
        """The request has cost so many weighted tokens; None: as many as was thought. The slot is
        free `after_s` from now. Only the first call counts.
        """
        if self._over:
            return
        self._over = True
        if tokens is not None and tokens != self._tokens:
            more = charged(tokens, self._weight) - charged(self._tokens, self._weight)
            self.desk.charge(self._line, more)
        if after_s:
            self._later(after_s, self.desk.left)
        else:
            self.desk.left()


Later = Callable[[float, Callable[[], None]], object]


class Desk:
    """`wake` is called when the store should be asked before long; `later(seconds, callback)` is
    the loop's.
    """

    def __init__(
        self, backend_id: str, worker: str, shares: tuple[int, int], wake: Callable[[], None],
        later: Later, now_us: Callable[[], int] = clock.monotonic_us,
    ) -> None:  # fmt: skip
        self._now_us = now_us
        self.backend_id = backend_id
        self.capacity = 0
        self.slots = 0
        self.busy = 0
        self.queue: FairQueue[Waiting] = FairQueue()
        self.used_us = self._now_us()
        self._worker = worker
        self._rank, self._workers = shares  # where no store has told us better
        self._wake = wake
        self._later = later
        self._unsent: dict[Line, int] = {}
        self._rival: Rival = NOBODY
        self._elders_ms: dict[Line, int] = {}  # since when the oldest of a line waits elsewhere
        self._askers: list[asyncio.Future[None]] = []
        self._heard: list[asyncio.Future[None]] = []  # askers whom the question under way is for
        self._short = False  # the store has given us less than we wanted
        self._away = False
        self._asking = False
        self._kept = 0  # while the store is asked: what we have whatever it answers
        self._called = False  # somebody needs what we have ahead of need
        self._wanted = False
        self._asked_us = 0
        self._called_us = 0  # when we last asked others for what they do not use
        self._until_us = 0
        self._due_us = 0

    @property
    def usable(self) -> int:
        """How many requests we may have there. While the store is away those that we have, and
        where we have none our share: between them workers do not have more than the capacity.
        """
        if self._away:
            return self.slots or self._share()
        if self._asking:
            return self._kept
        return min(self.slots, self.capacity) if self._now_us() < self._until_us else 0

    @property
    def promising(self) -> bool:
        """Whether the store, if it is asked, may well have more slots for us."""
        if self._away or self.queue or self._rival != NOBODY:
            return False
        return not self._short and self.slots < self.capacity

    def asked_first(self, answered: "asyncio.Future[None]") -> None:
        """The store is asked with one more request in mind; `answered` is done when it has said
        something, or nothing.
        """
        self._askers.append(answered)
        self.want()

    def take(self, line: Line, tokens: int, weight: int) -> Turn | None:
        """A free slot, where nobody waits for one that we know of."""
        self.used_us = self._now_us()
        if self.queue or self._rival != NOBODY or self.busy >= self.usable:
            return None
        self.queue.passed(line, charged(tokens, weight))
        return self._seat(line, tokens, weight)

    def join(self, waiter: Waiting) -> None:
        """It waits, and is `seated` as soon as its turn has come: perhaps at once."""
        self.queue.put(waiter.line, waiter, charged(waiter.tokens, waiter.weight))
        self.serve()
        if self.queue:
            self.want()

    def leave(self, waiter: Waiting) -> None:
        """It does not wait any more."""
        self.queue.remove(waiter.line, waiter)

    def serve(self) -> None:
        """Those whose turn has come get the slots that are free."""
        while self.queue and self.busy < self.usable:
            if self._rival != NOBODY and self._is_behind():
                self.want()
                return
            waiter = self.queue.pop()
            waiter.seated(self._seat(waiter.line, waiter.tokens, waiter.weight))

    def left(self) -> None:
        """A slot is free again."""
        self.busy -= 1
        self.serve()
        self._yield()

    def charge(self, line: Line, more: int) -> None:
        self.queue.charge(line, more)
        self._unsent[line] = self._unsent.get(line, 0) + more

    def want(self) -> None:
        """The store is to be asked soon."""
        if not self._wanted:
            self._wanted = True
            self._wake()

    def nudged(self) -> None:
        """Somebody waits for slots of this backend, or has given some back."""
        if self.queue or self.slots:
            self._called = True
            self.want()

    def due_us(self) -> int:
        """When the store is to be asked next."""
        if self._asking:
            return self._asked_us + 10 * RENEW_US  # its answer wakes us
        soon_us = self._asked_us + LEAST_BETWEEN_US if self._wanted else self._due_us
        return min(soon_us, self._due_us)

    @property
    def forgotten(self) -> bool:
        idle_us = self._now_us() - self.used_us
        return not (self.busy or self.queue or self._asking) and idle_us > FORGOTTEN_US

    def asks(self) -> SlotsAsked:
        """What to ask now; `told` or `unheard` is to follow."""
        self._kept = self._keeps()
        self._asking, self._wanted, self._called = True, False, False
        self._asked_us = self._now_us()
        if self._away:  # others have to say what they have before anybody gets more
            return self._says(self._kept, self.busy)
        self._heard, self._askers = self._askers, []
        heads = self.queue.heads(MOST_HEADS)
        # What is next here is counted by everybody alike, or two workers might wait for each other.
        lines = {one.line: 0 for _, _, one in heads}
        for line in (*self._unsent, *self.queue.lines()):
            if len(lines) < MOST_LINES:
                lines.setdefault(line, 0)
        for line in lines:
            lines[line] = self._unsent.pop(line, 0)
        return msgspec.structs.replace(
            self._says(self._kept, self.busy),
            spare=self._spare() + len(self._heard),
            waiting=len(self.queue),
            heads=tuple(
                (
                    priority,
                    counter,
                    (self._asked_us - one.since_us) // 1000,
                    one.line[1],
                    slack(one.weight),
                )
                for priority, counter, one in heads
            ),
            floors=tuple(self.queue.floors()),
            lines=tuple((priority, team, charge) for (priority, team), charge in lines.items()),
        )

    def farewell(self) -> SlotsAsked:
        """What to say when we go: everything is given back."""
        return msgspec.structs.replace(self._says(0, 0), ttl_ms=0)

    def told(self, asked: SlotsAsked, shared: Shared) -> bool:
        """The store has answered. Answers whether others should hear of it: they wait for what we
        gave back, or have what we wait for.
        """
        before, was_away, now_us = self.slots, self._away, self._now_us()
        self._asking, self._away = False, False
        wanted = asked.busy + len(asked.heads) + asked.spare
        self._short = shared.slots < min(wanted, self.capacity)
        self.slots, self._rival = shared.slots, shared.rival
        self._elders_ms = {
            (priority, team): self._asked_us // 1000 - waited_ms
            for (priority, team, _), waited_ms in zip(asked.lines, shared.elders, strict=True)
            if waited_ms
        }
        self._rank, self._workers = shared.rank, shared.workers
        self._until_us = self._asked_us + LEASE_MS * 1000 - MARGIN_US
        for (priority, team, _), counter in zip(asked.lines, shared.counters, strict=True):
            line = (priority, team)
            self.queue.learn(line, counter + self._unsent.get(line, 0))
        self.serve()
        self._said()
        if was_away:
            self._due_us = now_us + AWAY_AGAIN_US
        else:
            self._due_us = now_us + (LOOK_AGAIN_US if self.queue else RENEW_US)
        self._yield()
        self._wake()
        gave_back = shared.waiting > 0 and before > shared.slots
        return self._calls(shared, now_us) or gave_back

    def unheard(self) -> None:
        """The store has not answered."""
        self._asking, self._away = False, True
        self._rival = NOBODY
        self._due_us = self._now_us() + AWAY_AGAIN_US
        self.serve()
        self._said(*self._askers)
        self._askers = []
        self._wake()

    def _said(self, *others: "asyncio.Future[None]") -> None:
        """Whoever asks while an answer is under way waits for the next: that one is not for it."""
        heard, self._heard = self._heard, []
        for each in (*heard, *others):
            if not each.done():
                each.set_result(None)

    def _is_behind(self) -> bool:
        """Whether the one that is next here has to let one of another worker go first."""
        ((priority, counter, one),) = self.queue.heads(1)
        elder_ms = self._elders_ms.get(one.line)
        head = (priority, counter, one.since_us // 1000, one.line[1], slack(one.weight))
        return behind(head, self._rival, elder_ms)

    def _calls(self, shared: Shared, now_us: int) -> bool:
        """Whether others are to be told that somebody waits here: once, or while they have slots
        that they do not use.
        """
        if not self.queue:
            self._called_us = 0
            return False
        if self._called_us and (not shared.idle or now_us - self._called_us < LOOK_AGAIN_US):
            return False
        self._called_us = now_us
        return True

    def _yield(self) -> None:
        """What is free goes to whoever waits elsewhere."""
        if self._rival != NOBODY and self.slots > self.busy:
            self.want()

    def _seat(self, line: Line, tokens: int, weight: int) -> Turn:
        self.busy += 1
        self._unsent[line] = self._unsent.get(line, 0) + charged(tokens, weight)
        if 2 * (self.slots - self.busy) < self._spare() and self.slots < self.capacity:
            self.want()
        return Turn(self, line, tokens, weight, self._later)

    def _says(self, kept: int, busy: int) -> SlotsAsked:
        return SlotsAsked(
            self.backend_id, self._worker, LEASE_MS, self.capacity, kept, busy, spare=0, waiting=0
        )

    def _keeps(self) -> int:
        """What we do not give back. What is free goes to others where they wait."""
        usable = self.usable
        if self._away:
            return max(self.busy, usable)
        if self._called or self._rival != NOBODY:
            return self.busy
        return max(self.busy, min(usable, self.busy + self._spare()))

    def _share(self) -> int:
        return self.capacity // self._workers + (self._rank < self.capacity % self._workers)

    def _spare(self) -> int:
        """How many free slots to have ahead of need."""
        fair = -(-self.capacity // (2 * self._workers))
        return min(fair, max(1, self.busy), MOST_SPARE)
