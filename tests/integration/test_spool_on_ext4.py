"""What only a real file system shows: a power cut in the middle, and a disk without one free block.

Needs root, a loop device and mkfs.ext4; each test has a file system and a mount table of its own.
"""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IN_A_NAMESPACE = ["unshare", "--mount", "--propagation", "private"]

POWER_CUT = """
    import fcntl, os, subprocess, sys, time
    from pathlib import Path
    from gateway.clock import monotonic_us
    from gateway.stores import spooled
    mount, image = sys.argv[1:]
    with subprocess.Popen([sys.executable, "-c", WRITER, mount], stdout=subprocess.PIPE) as writer:
        writer.stdout.read(9_000)
        top = os.open(mount, os.O_RDONLY)
        cut_us = monotonic_us()
        fcntl.ioctl(top, 0x8004587D, (2).to_bytes(4, "little"))  # shut down, nothing more written
        os.close(top)
        writer.kill()
    subprocess.run(["umount", mount], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    (spool,) = spooled.writers(Path(mount))
    records = list(spooled.read(spool))
    assert [record.hold_id for record in records] == [f"req_{n}" for n in range(len(records))]
    assert len(spooled.segments(spool)) > 1
    print(cut_us - records[-1].at_us)
"""

WRITER = """
    import os, sys, time
    from pathlib import Path
    from gateway.clock import monotonic_us
    from gateway.stores.spool import Spool, SpoolUnavailable
    spool = Spool.open(Path(sys.argv[1]), "data-0", segment_us=400_000)
    n = 0
    while True:
        spool.intent(f"req_{n}", "s00", monotonic_us(), b"m" * 800)
        os.write(1, b".")
        n += 1
        if n % 5 == 0:
            time.sleep(0.001)
"""

FULL_DISK = """
    import os, sys, time
    from pathlib import Path
    from gateway.stores import spooled
    from gateway.stores.spool import Spool, SpoolUnavailable
    mount = Path(sys.argv[1])
    (mount / "filler").write_bytes(bytes(20 << 20))
    spool = Spool.open(mount, "data-0", segment_us=300_000)
    begun = ended = 0
    refused_since = None
    while refused_since is None or time.monotonic() - refused_since < 2.5:
        try:
            for _ in range(20):
                spool.intent(f"req_{begun}", "s00", 1, b"m" * 800)
                begun += 1
                refused_since = None
        except SpoolUnavailable:
            refused_since = refused_since or time.monotonic()
        time.sleep(0.001)
    with open(mount / "last", "wb", buffering=0) as last:
        try:
            while last.write(bytes(4096)):
                pass
        except OSError:
            pass
    os.sync()
    try:
        while True:
            spool.outcome(f"req_{ended}", b"o" * 900)
            ended += 1
    except SpoolUnavailable:
        pass
    assert ended > 1_000, ended
    assert len(list(spooled.read(spool.path))) == begun + ended
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tools = (shutil.which(tool) for tool in ("unshare", "mkfs.ext4", "losetup"))
    if sys.platform != "linux" or os.geteuid() != 0 or not all(tools):
        pytest.skip("needs root and the tools to make a file system")
    path = tmp_path / "ext4"
    with path.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", path], check=True)
    return path


def on(image: Path, program: str) -> str:
    mount = image.with_name("mount")
    mount.mkdir()
    inner = (
        f'mount -o loop {image} {mount} || exit 77; exec {sys.executable} -c "$0" {mount} {image}'
    )
    done = subprocess.run(
        [*IN_A_NAMESPACE, "sh", "-c", inner, program],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 77:
        pytest.skip(f"no loop mounts here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_power_cut_takes_the_last_moments_and_nothing_before_them(image: Path) -> None:
    program = f"WRITER = {textwrap.dedent(WRITER)!r}\n{textwrap.dedent(POWER_CUT)}"
    assert int(on(image, program)) < 1_000_000  # 60 ms, where nobody else wants the disk


def test_a_disk_without_a_free_block_kills_nobody_and_keeps_its_reserve(image: Path) -> None:
    on(image, textwrap.dedent(FULL_DISK))
