"""The decision on crash points tells every failpoint, and the matrix strikes each."""

from collections.abc import Iterable
from pathlib import Path

from gateway.failpoints import POINTS
from tests.crash import cells

TOLD = Path(__file__).parents[3] / "deploy" / "decisions" / "2026-11-22-crash-points.md"


def test_every_point_and_every_round_trip_is_told() -> None:
    told = TOLD.read_text()
    named = POINTS | {call.name.partition(",")[0] for call in cells.CALLS}

    assert [name for name in sorted(named) if f"`{name}" not in told] == []


def test_every_failpoint_is_struck() -> None:
    struck = {point.failpoint for point in cells.POINTS} | _names(cells.STRUCK_APART)

    assert struck == POINTS


def test_no_two_cells_have_one_name() -> None:
    names = [cell.name for cell in cells.CELLS]

    assert sorted(set(names)) == sorted(names)
    assert _names(cells.SLICE, " x ") <= {point.name for point in (*cells.POINTS, *cells.CALLS)}


def _names(told: Iterable[str], until: str = ",") -> set[str]:
    return {name.partition(until)[0] for name in told}
