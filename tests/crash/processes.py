"""The processes of a gateway, one by one: armed with failpoints, killed, stopped and ended."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.failpoints import ALLOWED_BY, ARMED_BY

ROOT = Path(__file__).parents[2]
SAYS_WITHIN_S = 60


class Process:
    """One `python -m gateway ...`. What it says goes to a file of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def said(self, words: str) -> bool:
        return words in self.log.read_text(errors="replace")

    async def passed(self, point: str, within_s: float = SAYS_WITHIN_S) -> bool:
        """Whether it was struck there in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.said(f"failpoint {point}\n"):
                    await asyncio.sleep(0.005)
                return True
        return False

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self, within_s: float = 60) -> int:
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.ended()

    async def stop(self) -> int:
        """In good order; its exit status. What does not end in time is killed and told."""
        self.send(signal.SIGTERM)
        try:
            return await self.ended()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"it did not end:\n{self.log.read_text()[-3000:]}") from None


class Started:
    """Starts processes and leaves none behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._all: list[Process] = []

    async def start(
        self, *words: str, environ: dict[str, str], points: str = "", fd: int | None = None
    ) -> Process:
        given = {k: v for k, v in os.environ.items() if not k.startswith("METERHOUSE_")}
        given |= environ | {"PYTHONPATH": str(ROOT)}
        if points:
            given |= {ARMED_BY: points, ALLOWED_BY: "yes"}
        log = self._directory / f"{len(self._all)}-{words[0]}.log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "gateway",
                *words,
                env=given,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=() if fd is None else (fd,),
            )
        self._all.append(Process(process, log))
        return self._all[-1]

    async def none_is_left(self) -> None:
        for process in self._all:
            if process.alive:
                process.send(signal.SIGCONT)
                await process.kill()


@contextlib.asynccontextmanager
async def processes(directory: Path) -> AsyncIterator[Started]:
    started = Started(directory)
    try:
        yield started
    finally:
        await started.none_is_left()


def listener() -> socket.socket:
    """Handed from worker to worker: a client that comes between two of them waits."""
    bound = socket.create_server(("127.0.0.1", 0), backlog=512)
    bound.set_inheritable(True)
    return bound
