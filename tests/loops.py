"""The two event loops the gateway may run on: what holds on one must hold on the other."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import uvloop

from tests.running import HANGS_AFTER_S

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

ON_BOTH_LOOPS = pytest.mark.parametrize(
    "loop_factory",
    [
        pytest.param(asyncio.new_event_loop, id="asyncio"),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
    ],
)


def run_on(
    loop_factory: LoopFactory, coro: Coroutine[Any, Any, T], within_s: float = HANGS_AFTER_S
) -> T:
    """What the coroutine answers. No task, and no complaint of the loop, may be left behind."""
    complaints: list[dict[str, Any]] = []

    async def bounded() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: complaints.append(context))
        async with asyncio.timeout(within_s):
            answer = await coro
        for _ in range(100):  # asyncio's own accepting tasks end some turns after their socket
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if not left:
                break
            await asyncio.sleep(0)
        assert not left, left
        return answer

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        answer = runner.run(bounded())
    assert not complaints, complaints
    return answer


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop turn until it is so; the deadline of `run_on` is the bound."""
    while not condition():
        await asyncio.sleep(0.001)
