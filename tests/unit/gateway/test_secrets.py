import base64
import os
import stat
import threading
from pathlib import Path

import pytest

from gateway import secrets
from gateway.settings import Settings, SettingsError


def settings_of(home: Path, **variables: str) -> Settings:
    return Settings.from_env({"METERHOUSE_HOME": str(home)} | variables)


def test_a_new_home_gets_its_secrets_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")

    first, second = secrets.load(settings), secrets.load(settings)

    assert first == second
    assert len(first.secret_key) == len(first.pepper) == 32
    for name in ("admin-token", "secret-key", "key-pepper"):
        assert stat.S_IMODE((tmp_path / "home" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert len(list((tmp_path / "home").iterdir())) == 3


def test_processes_that_start_together_agree_on_what_they_made(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    found = []
    barrier = threading.Barrier(8)

    def load() -> None:
        barrier.wait()
        found.append(secrets.load(settings))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(each == found[0] for each in found)


def test_the_environment_wins_over_the_file_and_is_not_written_down(tmp_path: Path) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    settings = settings_of(tmp_path, METERHOUSE_ADMIN_TOKEN="x" * 20, METERHOUSE_SECRET_KEY=key)

    loaded = secrets.load(settings)

    assert loaded.admin_token == "x" * 20
    assert base64.b64encode(loaded.secret_key).decode() == key
    assert [path.name for path in tmp_path.iterdir()] == ["key-pepper"]


def test_peppers_carry_versions_and_the_newest_signs(tmp_path: Path) -> None:
    old, new = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))

    loaded = secrets.load(settings_of(tmp_path, METERHOUSE_KEY_PEPPER=f"1:{old},2:{new}"))

    assert loaded.pepper_version == 2
    assert set(loaded.peppers) == {1, 2}
    assert loaded.pepper == base64.b64decode(new)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("METERHOUSE_ADMIN_TOKEN", "short"),
        ("METERHOUSE_ADMIN_TOKEN", "with a space in it all"),
        ("METERHOUSE_SECRET_KEY", "not base64 of 32 bytes"),
        ("METERHOUSE_KEY_PEPPER", "0:QUJD"),
        ("METERHOUSE_KEY_PEPPER", ","),
    ],
)
def test_a_secret_of_no_use_is_refused_by_name_without_showing_it(
    tmp_path: Path, variable: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=variable) as refused:
        secrets.load(settings_of(tmp_path, **{variable: value}))
    assert value == "," or value not in str(refused.value)


def test_an_emptied_file_is_not_quietly_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret-key").write_text("\n")

    with pytest.raises(SettingsError, match="secret-key is empty"):
        secrets.load(settings_of(tmp_path))
