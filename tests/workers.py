"""Further data plane workers of a house, each a process of its own."""

import asyncio
import os
import socket
import subprocess
import sys
import zoneinfo
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.house import House, plain_client
from tests.running import HANGS_AFTER_S


class Worker:
    """A running worker. `client` speaks to it alone."""

    def __init__(self, process: "subprocess.Popen[bytes]", client: httpx.AsyncClient) -> None:
        self.process = process
        self.client = client

    async def stop(self) -> None:
        """Ends it as a supervisor would. Its client leaves first, or the worker would give it
        seconds for that; what stands between it and its store may be in this event loop.
        """
        await self.client.aclose()
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, HANGS_AFTER_S)


@asynccontextmanager
async def another_worker(house: House, number: int, skew_s: float = 0) -> AsyncIterator[Worker]:
    """One more worker of this house, ready; its clock is wrong by `skew_s`."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environ = os.environ | {
            "METERHOUSE_HOME": str(house.settings.home),
            "METERHOUSE_REDIS_URL": house.settings.redis_url,
            "METERHOUSE_DATABASE_URL": house.settings.database_url,
            "METERHOUSE_STORE_TIMEOUT_MS": str(house.settings.store_timeout_ms),
            "METERHOUSE_ACCESS_LOG": "off",
            "PYTHONTZPATH": os.pathsep.join(zoneinfo.TZPATH),
        }
        words = ["serve", "--worker", str(number), "--fd", str(listener.fileno())]
        process = subprocess.Popen(  # noqa: ASYNC220 - it only forks
            [sys.executable, "-m", "tests.skewed", str(skew_s), *words],
            env=environ,
            pass_fds=[listener.fileno()],
        )
    worker = Worker(process, plain_client(url))
    try:
        # The kernel keeps the request until somebody serves the socket.
        assert (await worker.client.get("/readyz")).status_code == 200
        yield worker
    finally:
        await worker.stop()
