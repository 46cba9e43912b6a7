"""Calls of one script on one tag: those of one event-loop turn share one round trip.

A lane never loses sight of a call. Whoever waits for it may be cancelled or time out; the answer
still arrives here, and `on_loss` is told about every call whose effect nobody took note of.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from gateway.stores.redis.channel import Channel, Reply, StoreUnavailable
from gateway.stores.redis.scripts import Script

MOST_A_CALL: Final = 16  # a longer script call would hold the store up for others
# The store says these before it runs a script: nothing has happened.
_UNTOUCHED: Final = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MOVED", "NOAUTH", "NOPERM", "NOSCRIPT"}
    | {"OOM", "READONLY", "TRYAGAIN"}
)

S = TypeVar("S")  # the subject: what the caller asked about
T = TypeVar("T")  # the answer the caller gets

Entry = tuple[tuple[bytes, ...], asyncio.Future[T] | None, S]


class Lane(Generic[S, T]):
    """One queue. `decode(subject, now_us, answer)` makes the caller's answer of the script's."""

    def __init__(
        self,
        channel: Channel,
        script: Script,
        keys: tuple[str, ...],
        decode: Callable[[S, int, Any], T],
        on_loss: Callable[[S, T | None], None],
        within_s: float,
        *,
        revocable: bool = False,
    ) -> None:
        """`on_loss(subject, answer)`: nobody waits for this answer any more; None: the outcome of
        this call is unknown, though it may have taken effect. `revocable`: a call cancelled before
        its turn ends is not sent at all.
        """
        self.decode = decode
        self.on_loss = on_loss
        self._channel = channel
        self._script = script
        self._keys = keys
        self._within_s = within_s
        self._revocable = revocable
        self._pending: list[Entry[T, S]] = []
        self._loop = asyncio.get_running_loop()

    @property
    def pending(self) -> int:
        """Calls not sent yet."""
        return len(self._pending)

    def put(self, args: tuple[bytes, ...], subject: S) -> asyncio.Future[T]:
        """Send this with the turn's other calls. The future may fail with StoreUnavailable."""
        caller: asyncio.Future[T] = self._loop.create_future()
        self._enqueue((args, caller, subject))
        return caller

    def post(self, args: tuple[bytes, ...], subject: S) -> None:
        """As `put`, with nobody waiting: every outcome goes to `on_loss`."""
        self._enqueue((args, None, subject))

    def _enqueue(self, entry: Entry[T, S]) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(entry)

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if self._revocable:
            pending = [entry for entry in pending if entry[1] is None or not entry[1].cancelled()]
        for first in range(0, len(pending), MOST_A_CALL):
            self._send(pending[first : first + MOST_A_CALL])

    def _send(self, entries: list[Entry[T, S]]) -> None:
        args = [arg for entry in entries for arg in entry[0]]
        batch = _Batch(self, entries, self._channel)
        try:
            self._channel.send(self._script.packed(self._keys, args), batch.answered)
        except StoreUnavailable as fault:
            batch.fail(str(fault), sent=False)
            return
        batch.spelled_out = lambda: self._script.spelled_out(self._keys, args)
        batch.timer = self._loop.call_later(self._within_s, batch.late)


class _Batch(Generic[S, T]):
    """One script call on its way, and whom its answers belong to."""

    __slots__ = ("channel", "entries", "lane", "spelled_out", "timer")

    def __init__(self, lane: Lane[S, T], entries: list[Entry[T, S]], channel: Channel) -> None:
        self.lane = lane
        self.entries = entries
        self.channel = channel
        self.timer: asyncio.TimerHandle | None = None
        self.spelled_out: Callable[[], bytes] | None = None

    def answered(self, reply: Reply) -> None:
        if isinstance(reply, Exception):
            self._refused(reply)
            return
        self._stop()
        now_us = reply[0]
        for (_, caller, subject), answer in zip(self.entries, reply[1:], strict=True):
            if isinstance(answer, list) and answer[0] == 9:
                self._fail_one(caller, subject, answer[1].decode(), sent=True)
                continue
            decoded = self.lane.decode(subject, now_us, answer)
            if caller is None or caller.done():
                self.lane.on_loss(subject, decoded)
            else:
                caller.set_result(decoded)

    def late(self) -> None:
        """No answer in time. The callers go; the entries stay, for the answer may yet come."""
        self.timer = None
        for _, caller, _ in self.entries:
            if caller is not None and not caller.done():
                caller.set_exception(StoreUnavailable("the store did not answer in time"))
        self.channel.suspect()

    def fail(self, reason: str, *, sent: bool) -> None:
        """`sent`: the calls may have taken effect."""
        self._stop()
        for _, caller, subject in self.entries:
            self._fail_one(caller, subject, reason, sent=sent)

    def _fail_one(
        self, caller: asyncio.Future[T] | None, subject: S, reason: str, *, sent: bool
    ) -> None:
        if caller is not None and not caller.done():
            caller.set_exception(StoreUnavailable(reason))
        if sent or caller is None:
            self.lane.on_loss(subject, None)

    def _refused(self, fault: Exception) -> None:
        """The whole call failed. A script the store has forgotten is sent again with its text."""
        code = str(fault).partition(" ")[0]
        if code == "NOSCRIPT" and self.spelled_out is not None:
            command, self.spelled_out = self.spelled_out(), None
            try:
                self.channel.send(command, self.answered)
            except StoreUnavailable as down:
                self.fail(str(down), sent=False)
            return
        self.fail(str(fault), sent=code not in _UNTOUCHED)

    def _stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
