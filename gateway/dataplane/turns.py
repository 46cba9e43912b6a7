"""Requests that wait for a backend that is full: each gets a slot in its turn, or hears that there
is none.

A backend with `max_concurrency` has a desk; one without costs nothing. A request takes the first of
its candidates that has room. Where none has, it waits at all of them, for so long at most, and is
gone from there as soon as its client is.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from gateway import clock
from gateway.dataplane.desk import Desk, Turn
from gateway.dataplane.flow import Flow
from gateway.errors import RESTARTING
from gateway.stores.redis import bus
from gateway.stores.redis.backend_slots import SlotStore
from gateway.stores.redis.channel import StoreUnavailable
from gateway.telemetry.metrics import Counter, Distribution
from policies.candidates import Candidate
from policies.decision import Deny, DenyCode
from policies.fair_queue import Claim, cost
from policies.slot_leases import Shared, SlotsAsked

LONGEST_SLEEP_S: Final = 1.0
FAREWELL_WITHIN_S: Final = 1.0
_ASKED_AGAIN: Final = 3
_RETRY_MS: Final = 2_000  # to which the table of errors adds its jitter

Given = tuple[Candidate, Turn | None]  # no turn: the backend takes as many as come


class Bounds(msgspec.Struct, frozen=True):
    """How long a request waits, and how many of them at one backend in one worker."""

    seconds: float
    length: int


class Figures(msgspec.Struct, frozen=True):
    """What observers see of it: how long requests waited, and how many were turned away why."""

    waited: Distribution
    shed: Counter


def claim_of(flow: Flow) -> Claim:
    """In which line a request stands, what it may cost there, and with which weight it counts."""
    ask, principal, route = flow.ask, flow.principal, flow.route
    if ask is None or principal is None or route is None:
        raise RuntimeError("a turn before the ask")
    tokens = cost(ask.input_estimate, flow.estimated_tokens - ask.input_estimate)
    return (route.policy.priority, principal.team_path[-1]), tokens, principal.weight


class _Waiter:
    """A request that waits. `answer` is done once its turn has come, or never will."""

    __slots__ = ("answer", "desks", "line", "since_us", "tokens", "weight")

    def __init__(self, claim: Claim, desks: list[Desk]) -> None:
        self.line, self.tokens, self.weight = claim
        self.desks = desks
        self.since_us = clock.monotonic_us()
        self.answer: asyncio.Future[Turn | str] = asyncio.get_running_loop().create_future()

    def seated(self, turn: Turn) -> None:
        self.gone()
        if self.answer.done():  # cancelled, and about to leave
            turn.over(0)
        else:
            self.answer.set_result(turn)

    def refused(self, why: str) -> None:
        self.gone()
        if not self.answer.done():
            self.answer.set_result(why)

    def evicted(self, desk: Desk) -> None:
        """There is no room for it at this desk."""
        self.desks.remove(desk)
        if not self.desks:
            self.refused("full")

    def gone(self) -> None:
        for desk in self.desks:
            desk.leave(self)


class Turns:
    """Those of one worker. `shares`: its number and how many there are, for when no store tells."""

    def __init__(
        self,
        store: SlotStore,
        worker: str,
        shares: tuple[int, int],
        bounds: Bounds,
        figures: Figures,
    ) -> None:
        self._store = store
        self._worker = worker
        self._shares = shares
        self._bounds = bounds
        self._figures = figures
        self._desks: dict[str, Desk] = {}
        self._stopping = False
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def desks(self) -> Sequence[Desk]:
        """One for each backend that requests had to take turns at of late."""
        return tuple(self._desks.values())

    def at_once(self, candidate: Candidate, claim: Claim) -> Turn | None:
        """A slot of a backend that has a bound, where one is free; for what is not worth waiting
        for.
        """
        return self._desk(candidate).take(*claim)

    def asked(self, candidate: Candidate) -> "asyncio.Future[None] | None":
        """Done once the store has said something of one slot more of a backend that has a bound, or
        nothing; None: there is no hope of one.
        """
        desk = self._desk(candidate)
        if not desk.promising:
            return None
        answered: asyncio.Future[None] = self._loop.create_future()
        desk.asked_first(answered)
        return answered

    def find(self, candidates: Sequence[Candidate], claim: Claim) -> Given | None:
        """The first that has room, its slot taken; None: it takes a while to say."""
        for candidate in candidates:
            if candidate.max_concurrency is None:
                return candidate, None
            desk = self._desk(candidate)
            turn = desk.take(*claim)
            if turn is not None:
                return candidate, turn
            if desk.promising:
                return None
        return None

    async def wait(self, candidates: Sequence[Candidate], claim: Claim) -> Given | Deny:
        """As `find`, for as long as it takes and may take."""
        for candidate in candidates:
            found = self.find((candidate,), claim)
            for _ in range(_ASKED_AGAIN):  # others may have taken what came for us
                if found is not None or (answered := self.asked(candidate)) is None:
                    break
                await answered
                found = self.find((candidate,), claim)
            if found is not None:
                return found
        if self._stopping:
            return self._deny("restarting")
        return await self._wait(candidates, claim)

    async def _wait(self, candidates: Sequence[Candidate], claim: Claim) -> Given | Deny:
        """At all of them, which are full."""
        by_desk: dict[Desk, Candidate] = {}
        for candidate in candidates:
            by_desk.setdefault(self._desk(candidate), candidate)
        waiter = _Waiter(claim, list(by_desk))
        for desk in by_desk:
            self._join(desk, waiter)
        timer = self._loop.call_later(self._bounds.seconds, waiter.refused, "deadline")
        try:
            answer = await waiter.answer
        except asyncio.CancelledError:
            if waiter.answer.done() and not waiter.answer.cancelled():
                turn = waiter.answer.result()
                if isinstance(turn, Turn):
                    turn.over(0)
            raise
        finally:
            timer.cancel()
            waiter.gone()
            self._figures.waited.observe(clock.monotonic_us() - waiter.since_us)
        if not isinstance(answer, Turn):
            return self._deny(answer)
        return by_desk[answer.desk], answer

    def refuse_waiting(self) -> None:
        """Nobody waits from here on: the worker is about to end."""
        self._stopping = True
        for desk in self._desks.values():
            for waiter in desk.queue.items():
                if isinstance(waiter, _Waiter):
                    waiter.refused("restarting")

    def nudged(self, backend_id: str) -> None:
        """Another worker waits for slots of this backend, or has given some back."""
        desk = self._desks.get(backend_id)
        if desk is not None:
            desk.nudged()

    async def keep(self) -> None:
        """Asks the store for slots as they are needed, until cancelled."""
        while True:
            self._woken.clear()
            now_us = clock.monotonic_us()
            due_us = now_us + int(LONGEST_SLEEP_S * 1_000_000)
            for desk in tuple(self._desks.values()):
                if desk.forgotten:
                    del self._desks[desk.backend_id]
                    self._store.sharing(desk.farewell()).add_done_callback(_unheard)
                elif desk.due_us() <= now_us:
                    asked = desk.asks()
                    answered = partial(self._answered, desk, asked)
                    self._store.sharing(asked).add_done_callback(answered)
                else:
                    due_us = min(due_us, desk.due_us())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0, due_us - clock.monotonic_us()) / 1_000_000):
                    await self._woken.wait()

    async def end(self) -> None:
        """Gives every slot back."""
        partings = [self._store.sharing(desk.farewell()) for desk in self._desks.values()]
        if partings:
            done, _ = await asyncio.wait(partings, timeout=FAREWELL_WITHIN_S)
            for each in done:
                each.exception()

    def _desk(self, candidate: Candidate) -> Desk:
        desk = self._desks.get(candidate.backend_id)
        if desk is None:
            desk = self._desks[candidate.backend_id] = Desk(
                candidate.backend_id,
                self._worker,
                self._shares,
                self._woken.set,
                self._loop.call_later,
            )
        desk.capacity = candidate.max_concurrency or 0
        return desk

    def _join(self, desk: Desk, waiter: _Waiter) -> None:
        if waiter.answer.done():
            return
        if len(desk.queue) >= self._bounds.length:
            worse = desk.queue.evicted_for(waiter.line)
            if worse is None:
                waiter.evicted(desk)
                return
            _, one = worse
            desk.leave(one)
            if isinstance(one, _Waiter):
                one.evicted(desk)
        desk.join(waiter)

    def _answered(self, desk: Desk, asked: SlotsAsked, future: "asyncio.Future[Shared]") -> None:
        if future.cancelled() or isinstance(future.exception(), StoreUnavailable):
            desk.unheard()
        elif desk.told(asked, future.result()):
            bus.nudge(self._store.channels, desk.backend_id)

    def _deny(self, why: str) -> Deny:
        self._figures.shed.child(why).inc()
        if why == "restarting":
            return RESTARTING
        how = "as many requests as may wait for one are waiting already"
        if why == "deadline":
            how = f"none had room within {self._bounds.seconds:g} s"
        return Deny(
            DenyCode.OVERLOADED,
            f"every backend that may serve this request is full, and {how}; retry after the time"
            " in retry-after",
            retry_after_ms=_RETRY_MS,
        )


def _unheard(future: "asyncio.Future[Shared]") -> None:
    """What we had comes free at its expiry, too."""
    future.exception()
