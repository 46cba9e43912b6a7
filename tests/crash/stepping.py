"""Drives a coroutine and counts its awaits; cancels its task at the one that a test chose."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class Stepped:
    """`await Stepped(coro, at)`: the task is cancelled while it waits for the `at`-th time,
    and once more at the `again`-th wait after that.
    """

    def __init__(self, coro: Coroutine[Any, Any, None], at: int, again: int = 0) -> None:
        self.awaits = 0
        self._coro = coro
        self._at = {at, at + again}

    def __await__(self) -> Generator[Any, Any, None]:
        step: Any = self._coro.send
        argument: Any = None
        while True:
            try:
                waited = step(argument)
            except StopIteration:
                return
            self.awaits += 1
            task = asyncio.current_task()
            if self.awaits in self._at and task is not None:
                task.cancel()  # as by anybody else while it waits: `waited` is cancelled with it
            try:
                argument = yield waited
                step = self._coro.send
            except BaseException as fault:  # noqa: BLE001 - whatever it is, it is the coroutine's
                step, argument = self._coro.throw, fault
