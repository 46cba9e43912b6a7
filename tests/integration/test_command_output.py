"""Commands whose reader goes away, as `head` does: no traceback, and the work is done."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.stores.sql import configuration
from tests.admin_server import TOKEN, AdminServer, admin_server


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


def unread(server: AdminServer, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`meterhouse ...` into a pipe that nobody reads from."""
    environ = {name: value for name, value in os.environ.items() if "METERHOUSE" not in name}
    environ |= {
        "METERHOUSE_ADMIN_URL": server.url,
        "METERHOUSE_ADMIN_TOKEN": TOKEN,
        "METERHOUSE_HOME": str(home),
    }
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            env=environ,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize("words", [["--json"], []])
def test_an_apply_that_nobody_reads_is_applied_whole(
    server: AdminServer, tmp_path: Path, words: list[str]
) -> None:
    file = tmp_path / "seed.yaml"
    names = [f"tenant-{number}" for number in range(5)]
    file.write_text(
        "".join(f"---\n{{kind: tenant, name: {n}, currency: EUR, timezone: UTC}}\n" for n in names)
    )

    done = unread(server, tmp_path, "apply", "-f", str(file), *words)

    assert (done.returncode, done.stderr) == (0, "")
    assert [each.name for each in configuration.load(server.engine).tenants] == names


@pytest.mark.parametrize(
    "words", [["export"], ["export", "--json"], ["doctor"], ["version"], ["invoice", "list"]]
)
def test_whatever_is_not_read_ends_without_a_traceback(
    server: AdminServer, tmp_path: Path, words: list[str]
) -> None:
    done = unread(server, tmp_path, *words)

    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert "Broken pipe" not in done.stderr
