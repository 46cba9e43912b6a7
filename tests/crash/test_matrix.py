"""Wherever a process is struck, what a backend did is billed once and nothing stays held.

CRASH_RESULTS names a directory where results are kept: a run that was broken off goes on from
there, and so does one after CRASH_SECONDS, which begins no cell later than that. Beside them lie
the logs of the houses that were left in disorder.
CRASH_STOP_SECONDS is how long a stopped process stays so, CRASH_HOUSES how many gateways are struck
side by side; CRASH_CELLS a part of the names of the cells to play, CRASH_DATABASES those to play
them on.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import servers
from tests.crash.cells import CELLS, SLICE, Cell
from tests.crash.house import CrashHouse, crash_house
from tests.crash.laws import Found
from tests.crash.play import play
from tests.crash.results import Results
from tests.running import run

LONGEST_CELL_S = 90
HOUSES = 3  # most of a cell is waiting


@pytest.fixture
def home() -> Iterator[Path]:
    """Its sockets' paths must be short."""
    with servers.short_directory("mh-crash-") as path:
        yield path


Ledger = Callable[[Path], AbstractContextManager[str]]  # an empty database for a house at this path


@contextmanager
def _sqlite(home: Path) -> Iterator[str]:
    yield f"sqlite:///{home / 'ledger.db'}"


@dataclass
class Street:
    """Houses on one database, side by side. Each plays cells that are left up to the first that
    leaves it in disorder; then another is built in its place.
    """

    home: Path
    database: str
    ledger: Ledger
    left: list[Cell]
    results: Results
    until: float  # by the monotonic clock: no cell begins after it
    built: int = 0
    building: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def play(self) -> None:
        houses = int(os.environ.get("CRASH_HOUSES", HOUSES))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(houses, len(self.left))):
                tasks.create_task(self._one_after_another())

    @property
    def _goes_on(self) -> bool:
        return bool(self.left) and time.monotonic() < self.until

    async def _one_after_another(self) -> None:
        while self._goes_on:
            self.built += 1
            home = self.home / f"{self.database}-{self.built}"
            async with (
                _beside(servers.valkey()) as store_url,
                _beside(self.ledger(home)) as url,
                AsyncExitStack() as stack,
            ):
                async with self.building:  # Alembic migrates one database of a process at a time
                    house = await stack.enter_async_context(crash_house(home, store_url, url))
                await self._some(house)

    async def _some(self, house: CrashHouse) -> None:
        stop_s = float(os.environ.get("CRASH_STOP_SECONDS", "10"))
        while self._goes_on:
            cell = self.left.pop(0)
            began = time.monotonic()
            found = await _found(house, cell, stop_s)
            self.results.add(cell, self.database, time.monotonic() - began, found)
            if found.violations:
                logs = house.settings.home.glob("*-*.log")
                await asyncio.to_thread(self.results.keep_logs, cell, self.database, logs)
                return


@asynccontextmanager
async def _beside(server: AbstractContextManager[str]) -> AsyncIterator[str]:
    """A server that comes and goes without keeping the other houses waiting."""
    url = await asyncio.to_thread(server.__enter__)
    try:
        yield url
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


async def _found(house: CrashHouse, cell: Cell, stop_s: float) -> Found:
    try:
        async with asyncio.timeout(LONGEST_CELL_S):
            return await play(house, cell, stop_s)
    except Exception as fault:  # noqa: BLE001 - one broken cell does not keep the others from being played
        return Found(violations=[f"the cell broke: {type(fault).__name__}: {fault}"[:500]])


def _play(
    cells: Sequence[Cell], home: Path, ledgers: Mapping[str, Ledger], directory: Path
) -> Results:
    wanted = os.environ.get("CRASH_CELLS", "")
    on = os.environ.get("CRASH_DATABASES", "sqlite,postgres").split(",")
    until = time.monotonic() + float(os.environ.get("CRASH_SECONDS", "inf"))
    results = Results(directory)
    for database, ledger in ledgers.items():
        left = [
            cell
            for cell in cells
            if database in on
            and wanted in cell.name
            and not results.has(cell, database)
            and cell.is_on(database)
        ]
        street = Street(home, database, ledger, left, results, until)
        run(street.play(), within_s=(len(left) + 1) * LONGEST_CELL_S)
    return results


def test_a_cell_of_each_kind_of_evidence(
    home: Path, postgres_server_url: str, postgres_tables: str, figure: Callable[[str], None]
) -> None:
    cells = [cell for cell in CELLS if cell.name in SLICE]
    assert len(cells) == len(SLICE)
    made = servers.fresh_database
    ledgers = {"postgres": lambda _: made(postgres_server_url, postgres_tables)}
    results = _play(cells, home, ledgers, home / "results")
    figure(results.table(list(ledgers)))
    assert results.violations() == []


@pytest.mark.long
def test_every_cell(home: Path, postgres_server_url: str, figure: Callable[[str], None]) -> None:
    ledgers: dict[str, Ledger] = {
        "sqlite": _sqlite,
        "postgres": lambda _: servers.fresh_database(postgres_server_url),
    }
    directory = Path(os.environ.get("CRASH_RESULTS") or home / "results")
    results = _play(CELLS, home, ledgers, directory)
    figure(results.table(list(ledgers)))
    assert results.violations() == []
