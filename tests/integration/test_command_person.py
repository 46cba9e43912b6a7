"""The person command, as typed: somebody is found, told what is kept, and erased."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.stores.sql import pseudonym_keys, usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.seal import Sealer
from tests.admin_server import SEALING_KEY, TOKEN, AdminServer, Made, admin_server
from tests.invoicing import october

ADA = "ada@example.com"
WHOSE = ["--tenant", "acme", "--user", ADA]


@pytest.fixture
def server(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminServer]:
    """An admin server that the command finds by its environment, of a tenant that keeps people."""
    with admin_server(sqlite_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        with server.client() as client:
            tenant = Made(client).tenant(name="acme", currency="USD", end_users="pseudonym")
        with reading(server.engine) as connection:
            keys = pseudonym_keys.of_tenant(connection, tenant["id"])
        (pseudonyms,) = pseudonym_keys.opened(Sealer(SEALING_KEY), keys)
        hers = {"tenant_id": tenant["id"], "end_user": pseudonyms.of(ADA)}
        events = [october(f"req_{n}", **hers) for n in range(2)]
        usage.record(server.engine, [(event, True) for event in events])
        yield server


@pytest.mark.usefixtures("server")
def test_somebody_is_found_exported_and_erased(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["person", "find", *WHOSE]) == 0
    subject, amount = capsys.readouterr().out.splitlines()
    assert subject.startswith("eu_")
    assert amount.endswith("USD for 2 requests")

    assert main(["person", "export", "--tenant", "acme", "--pseudonym", subject]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["request_id"] for each in told] == ["req_0", "req_1"]

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ADA}\n"))
    assert main(["person", "erase", "--tenant", "acme", "--user", "-"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 pseudonyms led to this person and do not any more\n")
    assert amount in out
    assert "no invoice changes" in out

    assert main(["person", "find", *WHOSE]) == 0
    assert "nothing is kept of anybody by this name" in capsys.readouterr().err
    assert main(["person", "erase", *WHOSE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["erased"] == 0


@pytest.mark.usefixtures("server")
def test_a_key_is_renewed_and_the_one_before_destroyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["person", "rotate", "--tenant", "acme", "--forget"]) == 0

    said = capsys.readouterr().out
    assert said == "key version 2 is in force; 1 before it are destroyed\n"
    assert main(["person", "find", "--tenant", "nobody", "--user", ADA]) == 1
