"""Writing the spool: what is there when the call returns, and what if the disk says no."""

import asyncio
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gateway.stores import spooled
from gateway.stores.spool import (
    Checkpoint,
    Closed,
    Dispatch,
    Intent,
    Outcome,
    Spool,
    SpoolUnavailable,
)
from tests.running import run
from tests.spooling import event

ROOT = Path(__file__).parents[4]


def opened(directory: Path, **options: int) -> Spool:
    return Spool.open(directory, "data-0", **({"reserve_bytes": 0} | options))


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.intent("req_1", "s00", 5, b"\x00meta")
    spool.dispatch("req_1", 1, "be_1", 6)
    spool.checkpoint("req_1", 1, 256, 7)
    spool.outcome("req_1", event("req_1", 1))
    spool.closed("req_2")
    assert list(spooled.read(spool.path)) == [
        Intent("req_1", "s00", 5, b"\x00meta"),
        Dispatch("req_1", 1, "be_1", 6),
        Checkpoint("req_1", 1, 256, 7),
        Outcome("req_1", event("req_1", 1)),
        Closed("req_2"),
    ]
    run(spool.close())


def test_every_opening_has_a_spool_of_its_own_that_is_locked_while_it_lives(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    assert spooled.writers(tmp_path) == tuple(sorted((first.path, second.path)))
    run(first.close())
    assert not spooled.is_alive(first.path)
    assert spooled.is_alive(second.path)
    run(second.close())


@pytest.mark.parametrize("option", [{"segment_bytes": 200}, {"segment_us": 0}])
def test_segments_rotate_by_size_and_by_age(tmp_path: Path, option: dict[str, int]) -> None:
    spool = opened(tmp_path, **option)

    async def story() -> int:
        n = 0
        while len(spooled.segments(spool.path)) < 5:
            spool.intent(f"req_{n}", "s00", n, b"m" * 60)
            n += 1
            await asyncio.sleep(0.01)
        await spool.close()
        return n

    written = run(story())
    assert [record.hold_id for record in spooled.read(spool.path)] == [
        f"req_{n}" for n in range(written)
    ]


def test_a_spool_that_is_closed_takes_no_more_of_the_disk_than_it_needs(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.intent("req_1", "s00", 1, b"m" * 60)
    run(spool.close())
    (segment,) = spooled.segments(spool.path)
    assert segment.stat().st_size < 200


def test_a_closed_spool_takes_nothing_and_closes_once(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    run(spool.close())
    run(spool.close())
    with pytest.raises(SpoolUnavailable, match="closed"):
        spool.closed("req_1")


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnavailable, match="cannot open a spool"):
        opened(tmp_path / "file")


KILLED = """
    import os, sys, time
    from pathlib import Path
    from gateway.stores.spool import Spool, SpoolUnavailable
    spool = Spool.open(Path(sys.argv[1]), "data-0", segment_bytes=int(sys.argv[2]), segment_us=0)
    n = 0
    while True:
        try:
            spool.intent(f"req_{n}", "s00", n, b"m" * (n * 37 % 5000))
        except SpoolUnavailable:  # it writes faster than any disk
            time.sleep(0.01)
            continue
        n += 1
        os.write(1, b".")
"""


@pytest.mark.parametrize("segment_bytes", [20_000, 1 << 20])
def test_a_process_killed_at_any_point_loses_nothing_it_was_told_is_written(
    tmp_path: Path, segment_bytes: int
) -> None:
    draw = random.Random(segment_bytes)
    for turn in range(5):
        directory = tmp_path / str(turn)
        argv = [sys.executable, "-c", textwrap.dedent(KILLED), str(directory), str(segment_bytes)]
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            told = len(child.stdout.read(draw.randrange(1, 12_000)))
            child.kill()
            told += len(child.stdout.read())
        (writer,) = spooled.writers(directory)
        assert not spooled.is_alive(writer)
        read = [record.hold_id for record in spooled.read(writer)]
        assert read == [f"req_{n}" for n in range(len(read))]
        assert told <= len(read) <= told + 1


FULL_DISK = """
    import sys, time
    from pathlib import Path
    from gateway.stores import spooled
    from gateway.stores.spool import Spool, SpoolUnavailable
    (Path(sys.argv[1]) / "filler").write_bytes(bytes(1 << 19))
    spool = Spool.open(Path(sys.argv[1]), "data-0", reserve_bytes=1 << 18)
    begun = 0
    try:
        while True:
            spool.intent(f"req_{begun}", "s00", begun, b"m" * 4000)
            begun += 1
    except SpoolUnavailable:
        pass
    for n in range(50):
        spool.closed(f"req_{n}")
    try:
        spool.intent("late", "s00", 0, b"m" * 4000)
        sys.exit("a full disk took a new request")
    except SpoolUnavailable:
        pass
    ended = 50
    try:
        while True:
            spool.closed("never_begun")
            ended += 1
    except SpoolUnavailable:
        assert ended > 5_000, "the reserve was not there"
    still_open = spooled.open_requests(spooled.read(spool.path))
    assert len(still_open) == begun - 50 > 100, (len(still_open), begun)
    assert all(spooled.scan(s).sound_bytes == spooled.scan(s).total_bytes
               for s in spooled.segments(spool.path))
    (Path(sys.argv[1]) / "filler").unlink()
    deadline = time.monotonic() + 60
    while True:
        try:
            spool.intent("early", "s00", 0, b"m" * 4000)
            break
        except SpoolUnavailable:
            assert time.monotonic() < deadline, "there is room again and nobody noticed"
            time.sleep(0.05)
"""


def test_on_a_full_disk_new_requests_are_refused_and_old_ones_still_end(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or sys.platform != "linux":
        pytest.skip("needs a small file system of its own")
    inner = f'mount -t tmpfs -o size=2m none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inner]
    done = subprocess.run(
        [*argv, textwrap.dedent(FULL_DISK)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts in a user namespace here: {done.stderr}")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_every_segment_is_let_go_when_the_spool_is(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_us=0)

    async def story() -> None:
        while len(spooled.segments(spool.path)) < 3:
            spool.intent("req_1", "s00", 1, b"m" * 60)
            await asyncio.sleep(0.01)
        await spool.close()

    run(story())
    open_files = [str(fd.resolve()) for fd in Path("/proc/self/fd").glob("*")]
    assert not any(path.startswith(str(spool.path)) for path in open_files)
    assert str(spool.path) not in Path("/proc/self/maps").read_text()
