"""Writing the spool: what is there when the call returns, and what if the disk says no."""

import asyncio
import shutil
import signal
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


def test_segments_rotate_by_size(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=200)
    for n in range(10):
        spool.intent(f"req_{n}", "s00", n, b"m" * 60)
    assert len(spooled.segments(spool.path)) == 5
    assert [record.hold_id for record in spooled.read(spool.path)] == [
        f"req_{n}" for n in range(10)
    ]
    run(spool.close())


def test_segments_rotate_by_age(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_us=0)
    for n in range(3):
        spool.closed(f"req_{n}")
    assert len(spooled.segments(spool.path)) == 3
    run(spool.close())


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


def test_a_killed_process_loses_nothing_it_was_told_is_written(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from pathlib import Path
        from gateway.stores.spool import Spool
        spool = Spool.open(Path(sys.argv[1]), "data-0")
        for n in range(500):
            spool.intent(f"req_{n}", "s00", n, b"m" * 300)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    argv = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    done = subprocess.run(argv, check=False, cwd=Path(__file__).parents[4])
    assert done.returncode == -signal.SIGKILL
    (writer,) = spooled.writers(tmp_path)
    assert not spooled.is_alive(writer)
    assert len(spooled.open_requests(spooled.read(writer))) == 500


FULL_DISK = """
    import os, sys
    from pathlib import Path
    from gateway.stores import spooled
    from gateway.stores.spool import Spool, SpoolUnavailable
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
    still_open = spooled.open_requests(spooled.read(spool.path))
    assert len(still_open) == begun - 50 > 100, (len(still_open), begun)
    assert all(spooled.scan(s).sound_bytes == spooled.scan(s).total_bytes
               for s in spooled.segments(spool.path))
"""


def test_on_a_full_disk_new_requests_are_refused_and_old_ones_still_end(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or sys.platform != "linux":
        pytest.skip("needs a small file system of its own")
    inner = f'mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inner]
    done = subprocess.run(
        [*argv, textwrap.dedent(FULL_DISK)],
        check=False,
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts in a user namespace here: {done.stderr}")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_every_segment_is_closed_when_the_spool_is(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=100)

    async def story() -> None:
        for n in range(50):
            spool.intent(f"req_{n}", "s00", n, b"m" * 60)
        await spool.close()

    asyncio.run(story())
    open_files = [str(fd.resolve()) for fd in Path("/proc/self/fd").glob("*")]
    assert not any(path.startswith(str(spool.path)) for path in open_files)
