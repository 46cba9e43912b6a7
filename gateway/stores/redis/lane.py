"""Calls of one script on one tag: those of one event-loop turn share one round trip.

A lane never loses sight of a call. Whoever waits for it may be cancelled or time out; the answer
still arrives here, and `on_loss` is told about every call whose effect nobody took note of.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from gateway.stores.redis.channel import Link, Reply, StoreUnavailable
from gateway.stores.redis.epochs import Guard
from gateway.stores.redis.patience import READ_FIRST_S, Patience
from gateway.stores.redis.scripts import Script

MOST_A_CALL: Final = 16  # a longer script call would hold the store up for others
# More would come back together and keep the loop from reading the rest until it is too late.
MOST_CALLS: Final = 16
MOST_PENDING: Final = 10_000  # what waits is no slower for it, but by then it has waited enough
_TOO_LATE: Final = "the store did not answer in time"
# The store says these before it runs a script: nothing has happened.
_UNTOUCHED: Final = frozenset(
    {
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "EPOCH",
        "LOADING",
        "MASTERDOWN",
        "MOVED",
        "NOAUTH",
        "NOPERM",
        "NOSCRIPT",
    }
    | {"OOM", "READONLY", "TRYAGAIN"}
)

S = TypeVar("S")  # the subject: what the caller asked about
T = TypeVar("T")  # the answer the caller gets

Packed = Callable[[tuple[str, ...], list[bytes]], bytes]
Entry = tuple[tuple[bytes, ...], asyncio.Future[T] | None, S]


class Lane(Generic[S, T]):
    """One queue. `decode(subject, now_us, answer)` makes the caller's answer of the script's."""

    def __init__(  # noqa: PLR0913 - each lane is made in one place, by name
        self,
        channel: Link,
        script: Script,
        keys: tuple[str, ...],
        decode: Callable[[S, int, Any], T],
        on_loss: Callable[[S, T | None], None],
        within_s: float,
        *,
        revocable: bool = False,
        guard: Guard | None = None,
        patience: Patience | None = None,
    ) -> None:
        """`on_loss(subject, answer)`: nobody waits for this answer any more; None: the outcome of
        this call is unknown, though it may have taken effect. `revocable`: a call cancelled before
        its turn ends is not sent at all. `guard`: the script is told what we take its state for.
        `patience` learns how long the calls take, and cuts them short where it is lost.
        """
        self.decode = decode
        self.on_loss = on_loss
        self._channel = channel
        self._script = script
        self._keys = keys
        self.within_s = within_s
        self._revocable = revocable
        self.guard = guard
        self.patience = patience
        self._pending: deque[Entry[T, S]] = deque()
        self._under_way = 0
        self._flushing = False
        self._loop = asyncio.get_running_loop()

    @property
    def pending(self) -> int:
        """Calls not sent yet."""
        return len(self._pending)

    def put(self, args: tuple[bytes, ...], subject: S) -> asyncio.Future[T]:
        """Send this with the turn's other calls. The future may fail with StoreUnavailable."""
        caller: asyncio.Future[T] = self._loop.create_future()
        if len(self._pending) < MOST_PENDING:
            self._enqueue((args, caller, subject))
        else:
            caller.set_exception(StoreUnavailable(f"{MOST_PENDING} calls wait for it already"))
        return caller

    def post(self, args: tuple[bytes, ...], subject: S) -> None:
        """As `put`, with nobody waiting: every outcome goes to `on_loss`."""
        self._enqueue((args, None, subject))

    def call_ended(self) -> None:
        """One of the calls under way is answered, lost or late: there is room for another."""
        self._under_way -= 1
        self._flush_soon()

    def give_up_pending(self) -> None:
        """What waits behind a call that is not answered would not be either."""
        pending, self._pending = self._pending, deque()
        for entry in pending:
            self.fail_one(entry, _TOO_LATE, sent=False)

    def fail_one(self, entry: Entry[T, S], reason: str, *, sent: bool) -> None:
        """`sent`: the call may have taken effect."""
        _, caller, subject = entry
        if caller is not None and not caller.done():
            caller.set_exception(StoreUnavailable(reason))
        if sent or caller is None:
            self.on_loss(subject, None)

    def _enqueue(self, entry: Entry[T, S]) -> None:
        self._pending.append(entry)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._pending and not self._flushing and self._under_way < MOST_CALLS:
            self._flushing = True
            self._channel.soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._under_way < MOST_CALLS and (entries := self._next()):
            self._send(entries)

    def _next(self) -> list[Entry[T, S]]:
        entries: list[Entry[T, S]] = []
        while self._pending and len(entries) < MOST_A_CALL:
            entry = self._pending.popleft()
            caller = entry[1]
            if not (self._revocable and caller is not None and caller.cancelled()):
                entries.append(entry)
        return entries

    def _send(self, entries: list[Entry[T, S]]) -> None:
        self._under_way += 1
        batch = _Batch(self, entries, self._channel)
        try:
            self._channel.send(self.command(entries, self._script.packed), batch.answered)
        except StoreUnavailable as fault:
            batch.fail(str(fault), sent=False)
            return
        batch.again = {"NOSCRIPT": self._script.spelled_out}
        if self.guard is not None:
            batch.again["EPOCH"] = self._script.packed
        if self.patience is not None:
            batch.timer = self._loop.call_later(self.patience.slow_s, batch.dawdles, self._loop)
        else:
            batch.timer = self._loop.call_later(self.within_s, batch.due, self._loop)

    def command(self, entries: list[Entry[T, S]], packed: Packed) -> bytes:
        args = [arg for entry in entries for arg in entry[0]]
        if self.guard is not None:
            args.insert(0, self.guard.token)
        return packed(self._keys, args)


class _Batch(Generic[S, T]):
    """One script call on its way, and whom its answers belong to."""

    __slots__ = ("_ended", "_looks", "again", "channel", "entries", "lane", "timer")

    def __init__(self, lane: Lane[S, T], entries: list[Entry[T, S]], channel: Link) -> None:
        self.lane = lane
        self.entries = entries
        self.channel = channel
        self.timer: asyncio.TimerHandle | None = None
        # Why it is sent once more, and how.
        self.again: dict[str, Packed] = {}
        self._ended = False
        self._looks = 0  # how often it was not answered yet

    def answered(self, reply: Reply) -> None:
        if isinstance(reply, Exception):
            self._refused(reply)
            return
        self._stop()
        if self.lane.patience is not None and not self._looks:
            self.lane.patience.quick()
        now_us = reply[0]
        for entry, answer in zip(self.entries, reply[1:], strict=True):
            if isinstance(answer, list) and answer[0] == 9:
                self.lane.fail_one(entry, answer[1].decode(), sent=True)
                continue
            _, caller, subject = entry
            decoded = self.lane.decode(subject, now_us, answer)
            if caller is None or caller.done():
                self.lane.on_loss(subject, decoded)
            else:
                caller.set_result(decoded)

    def dawdles(self, loop: asyncio.AbstractEventLoop) -> None:
        """As `due`, for a call that may yet be answered in time."""
        self.timer = loop.call_later(READ_FIRST_S, self.slow, loop)

    def slow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Not answered yet. Where that is the rule, nobody waits any longer."""
        patience = self.lane.patience
        if patience is None:
            return
        self._looks += 1
        if self._looks == 1:
            patience.slow()
        left_s = self.lane.within_s - self._looks * patience.slow_s
        if patience.lost:
            self.late()
        elif left_s > 0:
            self.timer = loop.call_later(min(left_s, patience.slow_s), self.slow, loop)
        else:
            self.due(loop)

    def due(self, loop: asyncio.AbstractEventLoop) -> None:
        """Time is up, but it may be we who were busy: what has arrived by now is read first."""
        self.timer = loop.call_later(READ_FIRST_S, self.late)

    def late(self) -> None:
        """No answer in time. The callers go; the entries stay, for the answer may yet come."""
        self.timer = None
        for _, caller, _ in self.entries:
            if caller is not None and not caller.done():
                caller.set_exception(StoreUnavailable(_TOO_LATE))
        self.channel.suspect()
        if self.lane.patience is not None:
            self.lane.patience.lose()
        self._end()
        self.lane.give_up_pending()

    def fail(self, reason: str, *, sent: bool) -> None:
        """`sent`: the calls may have taken effect."""
        self._stop()
        for entry in self.entries:
            self.lane.fail_one(entry, reason, sent=sent)

    def _refused(self, fault: Exception) -> None:
        """The whole call failed. A script the store has forgotten is sent again with its text, and
        what bore an epoch that is over again with the one that is.
        """
        code, _, rest = str(fault).partition(" ")
        packed = self.again.pop(code, None)
        if code == "EPOCH" and not (self.lane.guard is not None and self.lane.guard.told(rest)):
            packed = None
        if packed is not None:
            try:
                self.channel.send(self.lane.command(self.entries, packed), self.answered)
            except StoreUnavailable as down:
                self.fail(str(down), sent=False)
            return
        self.fail(str(fault), sent=code not in _UNTOUCHED)

    def _stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self.lane.call_ended()
