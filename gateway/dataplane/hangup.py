"""Notices that the client hung up while we are waiting for something else.

Only `receive()` tells it; a send after the client is gone succeeds in silence. So a task waits
there and, when it learns the news, cancels the coroutine that serves the request, the way
asyncio.timeout does it. Most answers are quicker than a client can change its mind: the task is
made only for those requests that have lasted for a moment.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from litestar.types import Receive

TURN_S: Final = 0.025  # a request is watched after one to two of these
HAS_IT_ALL: Final = -1.0  # whoever has the whole answer may go


class ClientGone(Exception):  # noqa: N818 - it names what happened
    """The client hung up before the answer was complete."""


class HangUps:
    """All that may need watching in one worker, by age: at each turn the older ones get a
    watcher.
    """

    def __init__(self) -> None:
        self._young: list[HangUp] = []
        self._older: list[HangUp] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, request: "HangUp") -> None:
        self._young.append(request)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TURN_S, self._turn)

    def _turn(self) -> None:
        for request in self._older:
            request.watch()
        self._older, self._young = self._young, []
        again = bool(self._older)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TURN_S, self._turn) if again else None


class HangUp:
    """`with HangUp(receive, hang_ups, left): ...` raises ClientGone from the block so many seconds
    after the client has left as `left()` then says, if it is still inside.

    Enter it after the request's body has been read whole.
    """

    __slots__ = ("_gone", "_hang_ups", "_inside", "_left", "_receive", "_watcher", "task")

    def __init__(self, receive: Receive, hang_ups: HangUps, left: Callable[[], float]) -> None:
        self._receive = receive
        self._left = left
        self._hang_ups = hang_ups
        self._gone = False
        self._inside = False
        self.task: asyncio.Task[Any] | None = None  # who is inside
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self.task = asyncio.current_task()
        self._inside = True
        self._hang_ups.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = False
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()  # and let go: its end leads to us, and that would be a knot
        task, self.task = self.task, None
        if self._gone and kind is asyncio.CancelledError and task and task.uncancel() == 0:
            raise ClientGone from fault

    def watch(self) -> None:
        """Begins to wait for the news, if the request is still being served."""
        if self._inside and self._watcher is None:
            self._watcher = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._inside and (seconds := self._left()):
            if seconds == HAS_IT_ALL:
                return
            await asyncio.sleep(seconds)
        if self._inside and self.task is not None:
            self._gone = True
            self.task.cancel()
