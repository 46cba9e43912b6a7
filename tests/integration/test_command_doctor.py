"""`meterhouse doctor --verify-audit`: the chain, checked in the database with nothing running."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from gateway.stores.sql.admin_tables import audit_rows
from gateway.stores.sql.engine import open_engine, transaction
from tests.admin_server import Made, admin_server


@pytest.fixture
def kept(sqlite_url: str) -> dict[str, Any]:
    """The head of a chain of five changes, of a server that is gone."""
    with admin_server(sqlite_url) as server, server.client() as client:
        made = Made(client)
        for _ in range(5):
            made.tenant()
        return dict(client.get("/audit/head").json())


def doctor(database_url: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if "METERHOUSE" not in name}
    environ |= {"METERHOUSE_HOME": str(home), "METERHOUSE_DATABASE_URL": database_url}
    argv = [sys.executable, "-m", "gateway", "doctor", "--verify-audit", *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


def test_a_chain_that_holds_is_said_to_with_its_head(
    sqlite_url: str, tmp_path: Path, kept: dict[str, Any]
) -> None:
    anchor = f"{kept['seq']}:{kept['hash']}"

    plain = doctor(sqlite_url, tmp_path / "home")
    against = doctor(sqlite_url, tmp_path / "home", "--anchor", anchor, "--json")

    assert plain.returncode == 0, plain.stderr
    assert f"5 rows hold; head {anchor}" in plain.stdout
    (finding,) = json.loads(against.stdout)["findings"]
    assert (finding["part"], finding["state"]) == ("audit", "ok")
    assert "holds against the anchor 5" in finding["found"]


def test_the_first_row_that_does_not_hold_is_named(
    sqlite_url: str, tmp_path: Path, kept: dict[str, Any]
) -> None:
    engine = open_engine(sqlite_url)
    with transaction(engine) as connection:
        connection.execute(text("DROP TRIGGER audit_rows_stay"))
        where = audit_rows.c.seq == 3
        connection.execute(update(audit_rows).where(where).values(address="192.0.2.9"))
    engine.dispose()

    found = doctor(sqlite_url, tmp_path / "home")
    wrong = doctor(sqlite_url, tmp_path / "home", "--anchor", f"1:{'0' * 64}")

    assert (found.returncode, wrong.returncode) == (1, 1)
    assert "broken at row 3: its content was changed; 2 rows hold" in found.stdout
    assert "broken at row 1: it is not the row of the anchor" in wrong.stdout


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"

    found = doctor(f"sqlite:///{path}", tmp_path / "home")
    unclear = doctor(f"sqlite:///{path}", tmp_path / "home", "--anchor", "12")

    assert (found.returncode, unclear.returncode) == (0, 2)
    assert not path.exists()
