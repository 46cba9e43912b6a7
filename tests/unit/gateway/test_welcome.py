from pathlib import Path

import pytest

from gateway import welcome
from gateway.settings import Settings

GATEWAY, ADMIN = "http://127.0.0.1:8080", "http://127.0.0.1:8081"


def said(home: Path, **variables: str) -> str:
    settings = Settings.from_env({"METERHOUSE_HOME": str(home)} | variables)
    return welcome.text(settings, GATEWAY, ADMIN, with_demo=False)


def test_the_token_that_the_start_made_is_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    text = said(tmp_path / ".meterhouse")

    assert "admin token  .meterhouse/admin-token\n" in text
    assert 'curl -H "authorization: Bearer $(cat .meterhouse/admin-token)" ' in text


def test_a_token_that_was_given_is_used_as_it_was_given_and_not_shown(tmp_path: Path) -> None:
    token = "a-token-of-our-own-choice"

    text = said(tmp_path, METERHOUSE_ADMIN_TOKEN=token)

    assert "admin token  $METERHOUSE_ADMIN_TOKEN\n" in text
    assert 'curl -H "authorization: Bearer $METERHOUSE_ADMIN_TOKEN" ' in text
    assert token not in text
    assert "admin-token" not in text
