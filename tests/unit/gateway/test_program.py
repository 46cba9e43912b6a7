import subprocess
import sys
from pathlib import Path

import pytest

from gateway.program import program, typed


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One called by its path, as the only one there is."""
    path = tmp_path / "checkout" / ".venv" / "bin" / "meterhouse"
    path.parent.mkdir(parents=True)
    path.write_text('#!/bin/sh\necho runs "$@"\n')
    path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(path), "invoice", "draft"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return path


def test_one_below_the_current_folder_is_called_from_there(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(installed.parents[2])

    assert program() == ".venv/bin/meterhouse"
    assert typed("invoice draft") == "`.venv/bin/meterhouse invoice draft`"
    monkeypatch.chdir(installed.parent)
    assert program() == "./meterhouse"


def test_one_elsewhere_is_called_by_its_whole_path(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert program() == str(installed)


def test_one_that_a_shell_finds_is_called_by_its_name(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{installed.parent}:/usr/bin:/bin")

    assert program() == "meterhouse"


def test_one_of_a_module_is_called_as_the_interpreters_neighbour(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/src/gateway/__main__.py", "up"])
    monkeypatch.setattr(sys, "executable", str(installed.with_name("python")))

    assert program() == "checkout/.venv/bin/meterhouse"


def test_one_in_a_folder_with_a_space_runs_as_it_is_printed(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = installed.rename(tmp_path / "checkout" / "meterhouse").parent.rename(tmp_path / "a b")
    monkeypatch.setattr(sys, "argv", [str(moved / "meterhouse")])

    ran = subprocess.run(f"{program()} up", shell=True, capture_output=True, text=True, check=True)

    assert ran.stdout == "runs up\n"
