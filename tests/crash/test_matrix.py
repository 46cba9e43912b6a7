"""Wherever a process is struck, what a backend did is billed once and nothing stays held.

CRASH_RESULTS names a directory where results are kept: a run that was broken off goes on from
there. CRASH_STOP_SECONDS is how long a stopped process stays so; CRASH_CELLS a part of the names of
the cells to play, CRASH_DATABASES those to play them on.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
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


@pytest.fixture
def home() -> Iterator[Path]:
    """Its sockets' paths must be short."""
    with servers.short_directory("mh-crash-") as path:
        yield path


Ledger = Callable[[Path], AbstractContextManager[str]]  # an empty database for a house at this path


@contextmanager
def _sqlite(home: Path) -> Iterator[str]:
    yield f"sqlite:///{home / 'ledger.db'}"


async def _some(home: Path, database: str, url: str, left: list[Cell], results: Results) -> None:
    """Plays the cells that are left, up to the first that leaves a house in disorder."""
    stop_s = float(os.environ.get("CRASH_STOP_SECONDS", "10"))
    with servers.valkey() as store_url:
        async with crash_house(home, store_url, url) as house:
            while left:
                cell = left.pop(0)
                began = time.monotonic()
                found = await _found(house, cell, stop_s)
                results.add(cell, database, time.monotonic() - began, found)
                if found.violations:
                    return


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
    results = Results(directory)
    for database, ledger in ledgers.items():
        left = [
            cell
            for cell in cells
            if database in on
            and wanted in cell.name
            and not results.has(cell, database)
            and (database == "postgres" or not cell.needs_postgres)
        ]
        houses = 0
        while left:
            houses += 1
            place = home / f"{database}-{houses}"
            with ledger(place) as url:
                patience_s = (len(left) + 1) * LONGEST_CELL_S
                run(_some(place, database, url, left, results), within_s=patience_s)
    return results


def test_a_cell_of_each_kind_of_evidence(
    home: Path, postgres_server_url: str, figure: Callable[[str], None]
) -> None:
    cells = [cell for cell in CELLS if cell.name in SLICE]
    assert len(cells) == len(SLICE)
    ledgers = {"postgres": lambda _: servers.fresh_database(postgres_server_url)}
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
