"""The reprice command, as typed: one proposes, another approves, against a real admin server."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from billing.meters import Meters
from gateway.__main__ import main
from gateway.stores.sql import tenants, usage
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import Tenant
from tests.admin_server import TOKEN, AdminServer, Made, admin_server, refused
from tests.invoicing import october

TENANT = f"tenant_{'a' * 26}"
PRICE = {
    "book": "charge", "model": "chat-default", "meter": "input", "currency": "USD",
    "amount_per_million": "2", "effective_from": "2026-01-01T00:00:00Z",
}  # fmt: skip


@pytest.fixture
def server(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminServer]:
    """An admin server that the command finds by its environment."""
    with admin_server(sqlite_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        _used(server.engine)
        with server.client() as client:
            Made(client).make("prices", **PRICE)
        yield server


def _used(engine: Engine) -> None:
    with transaction(engine) as connection:
        acme = Tenant(id=TENANT, name="acme", currency="USD", timezone="Europe/Berlin")
        tenants.RECORDS.add(connection, acme)
    event = october("req_1", tenant_id=TENANT, usage=Meters(input=1_000_000))
    usage.record(engine, [(event, True)])


def finance(client: httpx.Client, name: str) -> str:
    return str(Made(client).make("admin-tokens", name=name, role="finance")["secret"])


def test_finance_proposes_and_a_colleague_approves(
    server: AdminServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server.client() as client:
        ada, grace = finance(client, "ada"), finance(client, "grace")
    asked = ["reprice", "propose", "--tenant", "acme", "--period", "2026-10"]

    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", ada)
    assert main([*asked, "--model", "chat-default", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["reprice", "approve", made["id"]]) == 1
    own = capsys.readouterr().err
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", grace)
    assert main(["reprice", "show", made["id"]]) == 0
    shown = capsys.readouterr().out
    assert main(["reprice", "approve", made["id"]]) == 0
    assert main(["reprice", "approve", made["id"]]) == 0
    assert main(["reprice", "list", "--tenant", "acme"]) == 0
    listed = capsys.readouterr().out.splitlines()

    assert (made["old"], made["new"], made["difference"]) == ("3", "2", "-1")
    assert [(each["model"], each["difference"]) for each in made["lines"]] == [
        ("chat-default", "-1")
    ]
    assert "ask a colleague" in own
    assert "3 -> 2: -1  (1 of 1 requests change)" in shown
    assert len(set(listed)) == 1
    assert "  acme  2026-10" in listed[0]
    assert "approved  3 -> 2 USD: -1" in listed[0]
    with server.client() as client:
        told = client.get("/audit", params={"limit": 200}).json()["items"]
    assert [each["operation"] for each in told if each["noun"] == "repricings"] == [
        "POST /repricings",
        "POST /repricings/{id}/approve",
    ]


def test_a_proposal_that_no_longer_holds_or_is_decided_says_what_to_do(server: AdminServer) -> None:
    body = {"tenant_id": TENANT, "period": "2026-10"}
    with server.client() as client:
        made = Made(client)
        stale, other = made.make("repricings", **body), made.make("repricings", **body)
        assert client.post(f"/repricings/{other['id']}/reject").json()["state"] == "rejected"
        made.make("prices", **PRICE | {"effective_from": "2026-02-01T00:00:00Z"})

        changed = client.post(f"/repricings/{stale['id']}/approve")
        decided = client.post(f"/repricings/{other['id']}/approve")
        ahead = client.post("/repricings", json=body | {"period": "2999-01"})
        odd = client.post("/repricings", json=body | {"period": "October"})

    for answer, code in ((changed, "changed"), (decided, "decided")):
        refused(answer, 409)
        assert answer.json()["code"] == code
        assert "anew" in answer.json()["detail"]
    refused(ahead, 422, "period")
    refused(odd, 400, "period")
