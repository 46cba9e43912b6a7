"""`meterhouse rollups`: looked at and derived anew in the database, with nothing running."""

import json
import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy import text

from gateway.stores.sql import compaction, usage
from gateway.stores.sql.engine import transaction
from tests.ledger_events import a_ledger, an_event


def meterhouse(url: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if "METERHOUSE" not in name}
    environ |= {"METERHOUSE_HOME": str(home), "METERHOUSE_DATABASE_URL": url}
    argv = [sys.executable, "-m", "gateway", "rollups", *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


def test_what_was_changed_by_hand_is_derived_anew(sqlite_url: str, tmp_path: Path) -> None:
    with a_ledger(sqlite_url) as engine:
        usage.record(engine, [(an_event(), True)])
        before = json.loads(meterhouse(sqlite_url, tmp_path, "--json").stdout)
        compaction.compact(engine)
        with transaction(engine) as connection:
            connection.execute(text("UPDATE rollups SET attempts = 7"))

        rebuilt = meterhouse(sqlite_url, tmp_path, "--rebuild")
        after = json.loads(meterhouse(sqlite_url, tmp_path, "--json").stdout)

    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "2026-11-21T12:00:00Z to 2026-11-21T12:15:00Z: 1 rollups" in rebuilt.stdout
    assert f"the rollups say {before['sha256']}" in rebuilt.stdout
    assert "before, the rollups said" in rebuilt.stdout
    assert (before["pending"], after) == (1, before | {"pending": 0})


def test_a_database_without_a_schema_is_said_to_be_one(sqlite_url: str, tmp_path: Path) -> None:
    refused = meterhouse(sqlite_url, tmp_path)

    assert refused.returncode == 1
    assert "no such table" in refused.stderr
