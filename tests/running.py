"""Run a coroutine from an ordinary test function, with a deadline instead of a hang."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
HANGS_AFTER_S = 180  # however busy the machine is, a story that lasts so long has stopped


def run(coro: Coroutine[Any, Any, T], within_s: float = HANGS_AFTER_S) -> T:
    """What the coroutine answers; TimeoutError when it takes longer than `within_s`."""

    async def bounded() -> T:
        async with asyncio.timeout(within_s):
            return await coro

    return asyncio.run(bounded())
