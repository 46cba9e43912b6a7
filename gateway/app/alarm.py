"""One timer for all deadlines of a connection."""

import asyncio
from collections.abc import Callable


class Alarm:
    """Rings at the earliest time it was asked for, and then again when asked again. It is only ever
    moved forward, so that hardly anything touches a timer: who is rung looks what is due by now.
    """

    __slots__ = ("_at", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def by(self, at: float) -> None:
        """At this loop time at the latest."""
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._rings)

    def stop(self) -> None:
        """For good: whom it would ring is let go."""
        self._ring = _nobody
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()


def _nobody() -> None:
    """Is rung after the end."""
