"""Keeps a worker's snapshot in step with the configuration: told by the bus, or found by looking.

The bus makes a change quick, looking makes it certain: both together hold the promise of one second
even when a message is lost. If a new snapshot cannot be built, the old one stays in force.
"""

import asyncio
import logging
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway import clock
from gateway.dataplane.reach import Unseal
from gateway.dataplane.request import DataPlane
from gateway.dataplane.snapshot import Snapshot
from gateway.failpoints import failpoint
from gateway.stores.sql import configuration

LOOK_EVERY_S: Final = 0.5

_LOG: Final = logging.getLogger(__name__)


class Refresher:
    """One a worker. `told` may be called from the bus at any time."""

    def __init__(self, plane: DataPlane, engine: Engine, unseal: Unseal, loaded_us: int) -> None:
        """`loaded_us`: when the plane's snapshot was asked for, by the monotonic clock."""
        self._plane = plane
        self._engine = engine
        self._unseal = unseal
        self._news = asyncio.Event()
        self.failures = 0
        plane.holds.at_least(plane.snapshot.epochs, loaded_us)
        plane.holds.channels.when_up(self.told)  # until it has looked, nothing is admitted there

    def told(self, _revision: int = 0) -> None:
        """Somebody says that the configuration has changed."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self._look()
                self.failures = 0
            except Exception as fault:  # noqa: BLE001 - neither a dead database nor an odd row stops us
                self.failures += 1
                if self.failures == 1:
                    kind = (
                        "is out of reach" if isinstance(fault, SQLAlchemyError) else "is unusable"
                    )
                    _LOG.exception("the configuration %s; the last one stays in force", kind)

    async def _look(self) -> None:
        asked_us = clock.monotonic_us()
        revision, epochs = await asyncio.to_thread(configuration.heads, self._engine)
        self._plane.holds.at_least(epochs, asked_us)
        if revision == self._plane.snapshot.revision:
            return
        before = self._plane.snapshot
        snapshot = await asyncio.to_thread(load_snapshot, self._engine, self._unseal, before)
        failpoint("refresh.loaded")
        self._plane.snapshot = snapshot


def load_snapshot(engine: Engine, unseal: Unseal, before: Snapshot | None = None) -> Snapshot:
    """Reads the whole configuration in one transaction and compiles what can be compiled ahead."""
    return Snapshot(configuration.load(engine), unseal, before)
