import json
import subprocess
import sys

import pytest

from gateway import __version__
from gateway.__main__ import COMMANDS, main


def test_every_command_can_be_asked_for_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert f"meterhouse {name}" in capsys.readouterr().out


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["fly"], ["serve", "--plane", "astral"], ["version", "--no-such"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "usage: meterhouse" in capsys.readouterr().err


def test_the_version_is_told_to_people_and_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"meterhouse {__version__}\n"

    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": __version__}


def test_version_loads_neither_a_store_nor_a_server() -> None:
    code = (
        "import sys; from gateway.__main__ import main; main(['version']); "
        "print(sorted({'sqlalchemy', 'litestar', 'redis', 'httpx'} & set(sys.modules)))"
    )

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.splitlines()[-1] == "[]"


def test_an_unknown_setting_is_wrong_usage_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METERHOUSE_HOEM", "elsewhere")

    assert main(["doctor"]) == 2
    assert "did you mean METERHOUSE_HOME" in capsys.readouterr().err
