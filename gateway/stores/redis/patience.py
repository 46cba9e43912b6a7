"""Whether the store answers soon enough to be asked.

One that answers just in time is worse than one that is away: requests queue up behind it. After
three slow calls in a row, or one that was not answered at all, nobody waits for it any more; then
it is asked by us alone, until an answer is quick again.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from gateway.stores.redis.channel import Link, Reply, StoreUnavailable, pack

MOST_SLOW: Final = 3
PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 5.0
STEADY_S: Final = 5.0  # back for less, it is left alone for longer the next time
READ_FIRST_S: Final = 0.01  # at least one look at the sockets lies between two timers

_LOG: Final = logging.getLogger(__name__)


class Patience:
    """One channel's. `lost`: admissions are not to be sent."""

    def __init__(self, channel: Link, slow_s: float) -> None:
        """`slow_s`: what takes longer is slow, by the time that we were free to see an answer."""
        self.lost = False
        self.slow_s = slow_s
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._slow = 0
        self._pause_s = PAUSE_S
        self._back_at = -STEADY_S

    def quick(self) -> None:
        """A call was answered soon."""
        self._slow = 0

    def slow(self) -> None:
        """A call is not answered yet."""
        self._slow += 1
        if self._slow >= MOST_SLOW:
            self.lose()

    def lose(self) -> None:
        """A call was given up."""
        if self.lost:
            return
        self.lost, self._slow = True, 0
        steady = self._loop.time() - self._back_at >= STEADY_S
        self._pause_s = PAUSE_S if steady else min(2 * self._pause_s, LONGEST_PAUSE_S)
        _LOG.warning("the quota store is too slow: nobody waits for it until it answers in time")
        self._later()

    def _later(self) -> None:
        pause_s = self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 (jitter)
        self._loop.call_later(pause_s, self._probe)

    def _probe(self) -> None:
        probe = _Probe(self._answered)
        try:
            self._channel.send(pack("PING"), probe.heard)
        except StoreUnavailable:
            self._later()
            return
        # By timers, not by the clock: it may be we who were busy.
        look = self._loop.call_later
        look(self.slow_s, lambda: look(READ_FIRST_S, self._missed, probe))

    def _answered(self) -> None:
        self.lost, self._back_at = False, self._loop.time()
        _LOG.warning("the quota store answers in time again")

    def _missed(self, probe: "_Probe") -> None:
        if not probe.over:
            probe.over = True
            self._channel.suspect()
        if self.lost:
            self._later()


class _Probe:
    """One question of ours. An answer that comes after it was `over` is of no use."""

    def __init__(self, on_answer: Callable[[], None]) -> None:
        self.over = False
        self._on_answer = on_answer

    def heard(self, reply: Reply) -> None:
        if self.over:
            return
        self.over = True
        if not isinstance(reply, Exception):
            self._on_answer()
