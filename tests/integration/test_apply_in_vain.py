"""`apply` where nothing could be asked or done says why, and nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin_server import TOKEN, AdminServer, admin_server

HOUSE = "{kind: tenant, name: acme, currency: EUR, timezone: UTC}"
NOBODY = "http://127.0.0.1:9"
CASES = [("a wrong token", []), ("a wrong token", ["--dry-run"]), ("nobody", ["--prune"])]


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


def applied(
    url: str, token: str, home: Path, *words: str, house: str = HOUSE
) -> subprocess.CompletedProcess[str]:
    file = home / "seed.yaml"
    file.write_text(house)
    environ = {name: value for name, value in os.environ.items() if "METERHOUSE" not in name}
    environ |= {
        "METERHOUSE_ADMIN_URL": url,
        "METERHOUSE_ADMIN_TOKEN": token,
        "METERHOUSE_HOME": str(home),
    }
    argv = [sys.executable, "-m", "gateway", "apply", "-f", str(file), *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("asked", "words"), CASES)
def test_an_apply_that_was_not_answered_says_only_why(
    server: AdminServer, tmp_path: Path, asked: str, words: list[str]
) -> None:
    url, token = (NOBODY, TOKEN) if asked == "nobody" else (server.url, "wrong")

    told = applied(url, token, tmp_path, *words)
    machine = applied(url, token, tmp_path, *words, "--json")

    assert (told.returncode, told.stdout) == (1, "")
    assert len(told.stderr.splitlines()) == 1
    found = json.loads(machine.stdout)
    assert (machine.returncode, found["steps"]) == (1, [])
    assert f"meterhouse: {found['error']}\n" == machine.stderr == told.stderr


def test_an_apply_of_nothing_says_that_there_was_nothing_to_do(
    server: AdminServer, tmp_path: Path
) -> None:
    told = applied(server.url, TOKEN, tmp_path, house="# nobody yet\n")

    assert (told.returncode, told.stdout, told.stderr) == (0, "nothing to do\n", "")
