"""The decision on crash points tells every failpoint, and the matrix strikes each."""

from pathlib import Path

from gateway.failpoints import POINTS
from tests.crash import cells

TOLD = Path(__file__).parents[3] / "deploy" / "decisions" / "2026-11-22-crash-points.md"


def test_every_failpoint_is_told() -> None:
    told = TOLD.read_text()

    assert [point for point in sorted(POINTS) if f"`{point}`" not in told] == []


def test_every_failpoint_is_struck() -> None:
    struck = {point.failpoint for point in cells.POINTS} | cells.STRUCK_APART

    assert struck == POINTS
