"""A call that gives money away, sent again because its answer was lost, gives it once."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from gateway.stores.sql.admin_tables import repeatable_calls
from gateway.stores.sql.engine import transaction
from tests.admin_server import AdminServer, Made, admin_server, refused

KEY = {"idempotency-key": "note-7f"}


@pytest.fixture
def server(database_url: str) -> Iterator[AdminServer]:
    with admin_server(database_url) as server:
        yield server


@contextlib.contextmanager
def hundred(server: AdminServer) -> Iterator[tuple[httpx.Client, dict[str, Any]]]:
    """An issued invoice of 100.00: a commitment's."""
    with server.client() as client:
        made = Made(client)
        tenant = made.tenant(currency="USD", timezone="Etc/UTC")["id"]
        month = str(datetime.now(UTC).date())[:7]
        made.make(
            "commitments",
            tenant_id=tenant,
            amount="100",
            term="month",
            first_day=f"{month}-01",
            prepaid=True,
        )
        draft = made.make("invoices", tenant_id=tenant, period=month)
        issued = client.post(f"/invoices/{draft['id']}/issue", json={"early": True}).json()
        assert issued["total"] == "100.00"
        yield client, issued


def test_a_credit_note_asked_for_again_is_one_note(server: AdminServer) -> None:
    with hundred(server) as (client, invoice), ThreadPoolExecutor(6) as pool:
        path = f"/invoices/{invoice['id']}/credit-notes"
        note = {"amount": "30", "reason": "slow"}

        def ask(_: int) -> httpx.Response:
            return client.post(path, json=note, headers=KEY)

        answers = list(pool.map(ask, range(6)))

        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 1
        other = client.post(path, json=note | {"amount": "31"}, headers=KEY)
        refused(other, 422)
        assert other.json()["code"] == "idempotency_key_reused"
        refused(client.post(path, json=note, headers={"idempotency-key": "a b"}), 400)
        assert client.post(path, json=note).json()["number"] == "INV-CN-000002"
        told = client.get("/audit", params={"object_id": answers[0].json()["id"]}).json()["items"]
        assert len(told) == 1


def test_a_grant_asked_for_again_is_one_grant(server: AdminServer) -> None:
    with server.client() as client:
        made = Made(client)
        scope = {"tenant": made.tenant()["id"]}
        budget = made.make("budgets", scope=scope, amount="10", period="month")
        path = f"/budgets/{budget['id']}/grants"
        grant = {"amount": "5", "until": "2999-01-01T00:00:00Z", "reason": "launch"}

        answers = [client.post(path, json=grant, headers=KEY) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [201, 201]
        assert len(client.get(path).json()["items"]) == 1


def test_a_key_of_a_month_ago_is_forgotten(server: AdminServer) -> None:
    with hundred(server) as (client, invoice):
        path = f"/invoices/{invoice['id']}/credit-notes"
        note = {"amount": "1", "reason": "slow"}
        assert client.post(path, json=note, headers=KEY).status_code == 201
        with transaction(server.engine) as connection:
            connection.execute(update(repeatable_calls).values(at_us=0))
        client.post(path, json=note, headers={"idempotency-key": "another"})

        again = client.post(path, json=note, headers=KEY)

        assert again.json()["number"] == "INV-CN-000003"
