"""gateway.telemetry.snapshots: figures of several processes, some of them dead."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.telemetry.metrics import (
    COUNTER,
    GAUGE_MAX,
    GAUGE_SUM,
    HISTOGRAM,
    Family,
    FamilyValues,
)
from gateway.telemetry.snapshots import SnapshotFile, collect, merged

HITS = Family(names=("hits", "hits.new"), kind=COUNTER, help="", labels=("who",))
WAIT = Family(names=("wait",), kind=HISTOGRAM, help="", bounds=(10,))
BUSY = Family(names=("busy",), kind=GAUGE_SUM, help="")
LATE = Family(names=("late",), kind=GAUGE_MAX, help="")


def hits(figure: int, who: str = "a") -> list[FamilyValues]:
    return [FamilyValues(HITS, [((who,), [figure])])]


def shown(directory: Path, name: str = "hits") -> dict[tuple[str, ...], list[int]]:
    return {
        labels: cells
        for values in collect(directory)
        if values.family.names == (name,)
        for labels, cells in values.rows
    }


def test_figures_of_living_processes_are_added_up(tmp_path: Path) -> None:
    one, two = SnapshotFile(tmp_path, "data-0"), SnapshotFile(tmp_path, "data-1")
    one.write([*hits(2), FamilyValues(WAIT, [((), [15, 1, 1])]), FamilyValues(BUSY, [((), [3])])])
    two.write([*hits(5), FamilyValues(WAIT, [((), [7, 1, 0])]), FamilyValues(BUSY, [((), [4])])])

    assert shown(tmp_path) == shown(tmp_path, "hits.new") == {("a",): [7]}
    assert shown(tmp_path, "wait") == {(): [22, 2, 1]}
    assert shown(tmp_path, "busy") == {(): [7]}


def test_a_gauge_may_show_the_greatest_figure_instead() -> None:
    both = [FamilyValues(LATE, [((), [3])]), FamilyValues(LATE, [((), [9])])]

    assert merged(both)[0].rows == [((), [9])]


def test_a_dead_processes_counts_stay_and_its_gauges_go(tmp_path: Path) -> None:
    worker = SnapshotFile(tmp_path, "data-0-1")
    worker.write([*hits(5), FamilyValues(BUSY, [((), [4])])])
    worker.close()
    successor = SnapshotFile(tmp_path, "data-0-2")
    successor.write(hits(1))

    assert shown(tmp_path) == {("a",): [6]}
    assert shown(tmp_path) == {("a",): [6]}
    assert shown(tmp_path, "busy") == {}
    assert sorted(path.name for path in tmp_path.glob("*.mp")) == ["data-0-2.mp", "retired.mp"]


def test_counts_survive_every_process(tmp_path: Path) -> None:
    for life in range(5):
        worker = SnapshotFile(tmp_path, f"data-0-{life}")
        worker.write(hits(10))
        worker.close()
        assert shown(tmp_path) == {("a",): [10 * (life + 1)]}


def test_a_fold_that_was_killed_half_way_counts_nobody_twice(tmp_path: Path) -> None:
    worker = SnapshotFile(tmp_path, "data-0")
    worker.write(hits(5))
    worker.close()
    left = (tmp_path / "data-0.mp").read_bytes()
    assert shown(tmp_path) == {("a",): [5]}

    (tmp_path / "data-0.mp").write_bytes(left)  # as if killed before its file was removed

    assert shown(tmp_path) == {("a",): [5]}
    assert not (tmp_path / "data-0.mp").exists()


def test_a_killed_processes_last_snapshot_counts(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from gateway.telemetry.metrics import *
from gateway.telemetry.snapshots import SnapshotFile
file = SnapshotFile(Path(sys.argv[1]), "data-0")
hits = Family(names=("hits", "hits.new"), kind=COUNTER, help="", labels=("who",))
file.write([FamilyValues(hits, [(("a",), [41])])])
print("written", flush=True)
sys.stdin.read()
"""
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"written\n"
        assert shown(tmp_path) == {("a",): [41]}
        assert (tmp_path / "data-0.mp").exists()
        worker.kill()

    assert shown(tmp_path) == {("a",): [41]}
    assert not (tmp_path / "data-0.mp").exists()


@pytest.mark.parametrize("torn", [b"", b"\x93\x01"])
def test_a_torn_file_is_no_reason_to_show_nothing(tmp_path: Path, torn: bytes) -> None:
    worker = SnapshotFile(tmp_path, "data-0")
    worker.write(hits(5))
    (tmp_path / "data-1.mp").write_bytes(torn)

    assert shown(tmp_path) == {("a",): [5]}


def test_figures_of_another_shape_give_way_to_the_later_ones() -> None:
    older = FamilyValues(Family(names=("wait",), kind=HISTOGRAM, help="", bounds=(7,)), [])
    newer = FamilyValues(WAIT, [((), [15, 1, 1])])

    assert merged([older, newer]) == [newer]
