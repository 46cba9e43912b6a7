"""Notices that the client hung up while we are waiting for something else.

Only `receive()` tells it; a send after the client is gone succeeds in silence. So one task waits
there for the whole request, and when it learns the news it cancels the coroutine that serves the
request, the way asyncio.timeout does it.
"""

import asyncio
from types import TracebackType
from typing import Self

from litestar.types import Receive


class ClientGone(Exception):  # noqa: N818 - it names what happened
    """The client hung up before the answer was complete."""


class HangUp:
    """`async with HangUp(receive): ...` raises ClientGone from the block when the client leaves.

    Enter it after the request's body has been read whole.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._inside = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is served in a task")
        self._task = task
        self._inside = True
        self._watch = asyncio.ensure_future(self._wait())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = False
        self._watch.cancel()
        if self._gone and kind is asyncio.CancelledError and self._task.uncancel() == 0:
            raise ClientGone from fault

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._inside:
            self._gone = True
            self._task.cancel()
