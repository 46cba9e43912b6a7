"""Named points of the protocol where a test may strike this process. In production they do nothing.

A test arms them by TEST_FAILPOINTS, `POINT=ACTION[@N]` separated by commas: the N-th passage (the
first without N) and no other is struck; a cancellation waits for the next that a task makes. A
process that finds the variable without TEST_MAY_KILL_ME, which only tests set, does not start. What
each point is for stands in deploy/decisions.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from gateway.settings import StartError

ARMED_BY: Final = "TEST_FAILPOINTS"
ALLOWED_BY: Final = "TEST_MAY_KILL_ME"

POINTS: Final = frozenset(
    {
        # a request, in the order of its walk
        "admit.begins", "admit.granted", "admit.intended", "outage.intended",
        "forward.connected", "forward.marked", "transport.written", "forward.answered",
        "forward.refused", "hedge.begins", "hedge.decided",
        "relay.whole", "relay.replied", "relay.begins", "relay.piece", "relay.checkpointed",
        "relay.metered", "relay.ended", "sliced.piece",
        "settle.begins", "settle.counted", "settle.spooled", "settle.answered",
        "settle.resent", "release.spooled", "release.answered",
        # a shadow of one, which walks the same way beside it
        "shadow.begins", "shadow.admitted", "shadow.answered", "shadow.heard",
        # beside the requests of a worker
        "upkeep.extends", "spool.turns", "spool.syncs", "spool.rotates", "refresh.loaded",
        "leases.asked", "leases.granted", "leases.written", "leases.given_back",
        # every writing transaction of the database
        "sql.commits", "sql.committed",
        # jobs
        "drain.taken", "drain.booked", "drain.done",
        "replay.adopted", "replay.handed_in", "replay.booked", "replay.discarded",
        "reap.leased", "reap.decided", "reap.ended",
        "rebuild.begun", "rebuild.closed", "rebuild.told", "rebuild.placed",
        "rebuild.counted", "rebuild.held", "rebuild.opened",
        "prune.deletes", "reap_leases.found", "reap_leases.ended",
    }
)  # fmt: skip


# What a failpoint is outside of tests. A request passes some twenty, so it is not even a function
# of ours: nothing contains the point.
_nothing: Final[Callable[[str], object]] = frozenset[str]().__contains__


class _Armed:
    """Counts passages and strikes once at each point."""

    def __init__(self, wanted: Mapping[str, tuple[int, Callable[[], None]]]) -> None:
        self._left = {point: count for point, (count, _) in wanted.items()}
        self._actions = {point: action for point, (_, action) in wanted.items()}

    def __call__(self, point: str) -> None:
        left = self._left.get(point)
        if left is None:
            return
        action = self._actions[point]
        if left == 1 and action is _cancel and _task() is None:
            return
        self._left[point] = left - 1
        if left == 1:
            # Unbuffered, so that it is told before the process is gone.
            os.write(sys.stderr.fileno(), f"failpoint {point}\n".encode())
            action()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    """Whoever armed it sends SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def _cancel() -> None:
    """The task that passes, at its next await."""
    task = _task()
    if task is not None:
        task.cancel()


def _task() -> asyncio.Task[object] | None:
    """None in a callback or a thread, where nothing can be cancelled."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _action(text: str) -> Callable[[], None] | None:
    name, _, argument = text.partition(":")
    if name == "sleep" and argument.isdigit():
        return lambda: time.sleep(int(argument) / 1000)
    return {"kill": _kill, "stop": _stop, "cancel": _cancel}.get(text)


def armed(environ: Mapping[str, str]) -> Callable[[str], object]:
    """What to call at each point. StartError for what is not allowed or not understood."""
    text = environ.get(ARMED_BY, "")
    if not text:
        return _nothing
    if environ.get(ALLOWED_BY) != "yes":
        raise StartError(
            f"{ARMED_BY} makes a process kill itself; it is for tests, which also set"
            f" {ALLOWED_BY}=yes. Unset it"
        )
    return _Armed(dict(_read(each) for each in text.split(",")))


def _read(text: str) -> tuple[str, tuple[int, Callable[[], None]]]:
    point, _, rest = text.strip().partition("=")
    wanted, _, count = rest.partition("@")
    action = _action(wanted)
    if point not in POINTS or action is None or not (count or "1").isdigit():
        raise StartError(
            f"{ARMED_BY}: {text!r} must read POINT=kill, cancel, stop or sleep:MS, and @N after it"
            " for the N-th passage"
        )
    return point, (int(count or 1), action)


failpoint: Final[Callable[[str], object]] = armed(os.environ)
