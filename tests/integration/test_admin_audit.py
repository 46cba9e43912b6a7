"""Every change leaves a row of the audit chain in its own transaction: who, what, from where; never
a secret, and nothing where nothing changed.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update

from gateway import clock, ids
from gateway.admin.api import operations
from gateway.stores.sql import breakers
from gateway.stores.sql.admin_tables import audit_rows
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import KeyBlock
from tests.admin_server import AdminServer, Made, admin_server
from tests.admin_world import BILL

HOOK_SECRET = "a-hook-secret-nobody-may-read-0123456789"
CANARY = "sk-canary-0123456789"
UNTIL = {"until": "2099-01-01T00:00:00Z", "reason": "a launch", "approver": "Ada"}
READS = {"POST /policies/explain", "POST /policies/replay", "POST /rehearsals"}


def rows(client: httpx.Client, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": 200} | filters
    while True:
        page = client.get("/audit", params=params).json()
        found += page["items"]
        if page["next"] is None:
            return found
        params["cursor"] = page["next"]


def test_a_row_says_who_did_what_to_what_from_where(admin_client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    body = {"name": tenant["name"], "currency": "EUR", "timezone": "Europe/Paris"}
    answer = admin_client.put(f"/tenants/{tenant['id']}", json=body)
    admin_client.delete(f"/tenants/{tenant['id']}")

    created, changed, deleted = rows(admin_client, object_id=tenant["id"])

    assert created["before"] is None
    assert created["after"]["name"] == tenant["name"]
    assert changed["operation"] == "PUT /tenants/{id}"
    assert changed["before"] == {"timezone": "Europe/Berlin"}
    assert changed["after"] == {"timezone": "Europe/Paris"}
    assert changed["request_id"] == answer.headers["x-request-id"]
    assert (changed["actor_id"], changed["role"]) == ("bootstrap", "platform_admin")
    assert (changed["address"], changed["tenant_id"]) == ("127.0.0.1", tenant["id"])
    assert deleted["before"]["timezone"] == "Europe/Paris"
    assert deleted["after"] is None
    assert deleted["prev_hash"] == changed["hash"]
    assert admin_client.get(f"/audit/{created['id']}").json() == created


class Walk:
    """Does what is asked for, and sees that each of it leaves a row."""

    def __init__(self, client: httpx.Client, made: Made) -> None:
        self.client = client
        self.made = made
        self.done: set[str] = set()
        self.secrets = [CANARY]

    def do(self, operation: str, identifier: str = "", **body: Any) -> dict[str, Any]:
        method, path = operation.split(" ")
        before = self.seq()
        answer = self.client.request(method, path.replace("{id}", identifier), json=body or None)
        if not answer.is_success or self.seq() == before:
            raise AssertionError(f"{operation}: {answer.status_code} {answer.text}")
        self.done.add(operation)
        shown = dict(answer.json()) if answer.content else {}
        if "secret" in shown:
            self.secrets.append(shown["secret"].split("_")[2])
        return shown

    def seq(self) -> int:
        return int(self.client.get("/audit/head").json()["seq"])

    def organise(self) -> dict[str, Any]:
        fields = {"currency": "USD", "timezone": "UTC"}
        tenant = self.do("POST /tenants", name=self.made.name(), **fields)
        self.do("PUT /tenants/{id}", tenant["id"], name=self.made.name(), **fields)
        team = self.do("POST /teams", tenant_id=tenant["id"], name="one")
        self.do("PUT /teams/{id}", team["id"], tenant_id=tenant["id"], name="two")
        key = self.do("POST /keys", team_id=team["id"], name="one")
        self.do("PUT /keys/{id}", key["id"], team_id=team["id"], name="two")
        self.do("POST /keys/{id}/rotate", key["id"])
        self.do("POST /keys/{id}/revoke", key["id"])
        self.do("DELETE /keys/{id}", key["id"])
        self.do("DELETE /teams/{id}", team["id"])
        self.do("DELETE /tenants/{id}", self.made.tenant()["id"])
        keeping = self.made.tenant(end_users="pseudonym")["id"]
        for verb in ("find", "export", "erase"):
            self.do(f"POST /tenants/{{id}}/end-users/{verb}", keeping, user=CANARY)
        self.do("POST /tenants/{id}/end-users/rotate", keeping, forget=True)
        return tenant

    def furnish(self, own: dict[str, str]) -> None:
        address = {"name": self.made.name(), "base_url": "http://127.0.0.1:9/v1", "region": "eu"}
        backend = self.do("POST /backends", credential=CANARY, **address)
        self.do("PUT /backends/{id}", backend["id"], credential=f"{CANARY}9", **address)
        targets = [{"backend_id": backend["id"], "upstream_model": "m"}]
        model = {"name": self.made.name(), "targets": targets}
        model_id = self.do("POST /models", **model)["id"]
        self.do("PUT /models/{id}", model_id, context_window=9, **model)
        self.do("DELETE /models/{id}", model_id)
        self.do("DELETE /backends/{id}", backend["id"])
        policy = self.do("POST /policies", name="one", scope=own)
        self.do("PUT /policies/{id}", policy["id"], name="one", scope=own, prefer="fastest")
        for verb in ("shadow", "activate", "retire"):
            self.do(f"POST /policies/{{id}}/{verb}", policy["id"])
        self.do("DELETE /policies/{id}", policy["id"])
        limit = self.do("POST /limits", scope=own, requests_per_minute=5)
        self.do("PUT /limits/{id}", limit["id"], scope=own, requests_per_minute=6)
        self.do("DELETE /limits/{id}", limit["id"])

    def spend(self, own: dict[str, str]) -> None:
        budget = self.do("POST /budgets", scope=own, amount="5", period="day")
        self.do("PUT /budgets/{id}", budget["id"], scope=own, amount="6", period="day")
        grant = {"budget_id": budget["id"], "amount": "1"} | UNTIL
        grant_id = self.do("POST /grants", **grant)["id"]
        self.do("PUT /grants/{id}", grant_id, **grant | {"reason": "another"})
        self.do("POST /budgets/{id}/grants", budget["id"], amount="1", **UNTIL)
        self.do("DELETE /grants/{id}", grant_id)
        self.do("DELETE /budgets/{id}", budget["id"])
        price = {"book": "charge", "model": self.made.name(), "meter": "input", "currency": "USD"}
        draft = {"amount_per_million": "1", "state": "draft"} | price
        first = self.do("POST /prices", **draft)
        self.do("PUT /prices/{id}", first["id"], **price, amount_per_million="2")
        self.do("POST /prices/{id}/approve", first["id"])
        self.do("DELETE /prices/{id}", self.made.make("prices", **draft)["id"])
        off = {"tenant_id": own["tenant"], "effective_from": "2999-01-01T00:00:00Z"}
        discount = self.do("POST /discounts", **off, percent="5", state="draft")
        self.do("PUT /discounts/{id}", discount["id"], **off, percent="6")
        self.do("POST /discounts/{id}/approve", discount["id"])
        self.do("DELETE /discounts/{id}", discount["id"])
        spend = {"tenant_id": own["tenant"], "term": "year", "first_day": "2999-01-01"}
        agreed = self.do("POST /commitments", **spend, amount="5", state="draft")
        self.do("PUT /commitments/{id}", agreed["id"], **spend, amount="6")
        self.do("POST /commitments/{id}/approve", agreed["id"])
        self.do("DELETE /commitments/{id}", agreed["id"])
        month = {"tenant_id": own["tenant"], "period": "2026-10"}
        for verb in ("approve", "reject"):
            proposal = self.do("POST /repricings", **month)
            self.do(f"POST /repricings/{{id}}/{verb}", proposal["id"])
        self.do("POST /prices/import", model="gpt-4o-mini", as_model=self.made.name())
        bill = BILL | {"name": self.made.name(), "backend_ids": [self.made.backend()["id"]]}
        self.do("POST /provider-bills", **bill)
        box = {"profile": "h100", "prefill_tokens_per_second": "9"}
        rack = self.made.backend(tco=box, tco_effective_from="2026-01-01T00:00:00Z")
        self.do("POST /backends/{id}/idle", rack["id"], period="2026-10")
        rate = {"base": "USD", "quote": "EUR", "day": "2026-10-31", "rate": "0.9"}
        self.do("POST /exchange-rates", **rate, source="ECB")
        self.do("POST /exchange-rates/import", rates=[rate], source="another")
        far = self.do("POST /exchange-rates", **rate | {"rate": "9"}, source="ECB", state="draft")
        self.do("POST /exchange-rates/{id}/approve", far["id"])
        invoice = self.do("POST /invoices", tenant_id=own["tenant"], period="2026-10")
        self.do("DELETE /invoices/{id}", invoice["id"])
        self.do("PUT /tenants/{id}/billing", own["tenant"], minimum="10")
        due = self.do("POST /invoices", tenant_id=own["tenant"], period="2026-10")
        self.do("POST /invoices/{id}/issue", due["id"])
        note = self.do("POST /invoices/{id}/credit-notes", due["id"], amount="1", reason="late")
        self.do("POST /invoices/{id}/void", note["id"], reason="another")

    def appoint(self) -> None:
        token = self.do("POST /admin-tokens", name=self.made.name(), role="auditor")
        self.do("PUT /admin-tokens/{id}", token["id"], name=self.made.name(), role="auditor")
        self.do("POST /admin-tokens/{id}/rotate", token["id"])
        self.do("POST /admin-tokens/{id}/revoke", token["id"])
        self.do("DELETE /admin-tokens/{id}", token["id"])

    def warn(self, own: dict[str, str]) -> None:
        hook = {"name": "hook", "scope": own, "url": "https://hooks.example.com/m"}
        self.secrets.append(HOOK_SECRET)
        channel = self.do("POST /alert-channels", **hook, secret=HOOK_SECRET)
        self.do("PUT /alert-channels/{id}", channel["id"], **hook | {"name": "other"})
        self.do("DELETE /alert-channels/{id}", channel["id"])
        loop = {"scope": own, "amount_per_minute": "5"}
        breaker = self.do("POST /loop-breakers", **loop)
        self.do("PUT /loop-breakers/{id}", breaker["id"], **loop | {"action": "block"})
        self.do("DELETE /loop-breakers/{id}", breaker["id"])


def blocked(server: AdminServer, tenant_id: str) -> str:
    """A block, as a loop breaker makes it."""
    now_us = clock.now_us()
    block = KeyBlock(
        id=ids.new("block"), tenant_id=tenant_id, team_id="t", key_id="k", breaker_id="b",
        alert_id="a", shape="s", reason="r", from_us=now_us, until_us=now_us + 60_000_000,
    )  # fmt: skip
    with transaction(server.engine) as connection:
        breakers.BLOCKS.add(connection, block)
    return block.id


def test_every_operation_that_changes_anything_leaves_a_row_without_secrets(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    walk = Walk(admin_client, made)

    own = {"tenant": walk.organise()["id"]}
    walk.furnish(own)
    walk.spend(own)
    walk.appoint()
    walk.warn(own)
    walk.do("POST /key-blocks/{id}/lift", blocked(admin_house, own["tenant"]))

    changing = {f"{each.method} {each.path}" for each in operations() if each.method != "GET"}
    assert changing - READS == walk.done
    told = "".join(str(row) for row in rows(admin_client))
    assert not [secret for secret in walk.secrets if secret in told]
    assert admin_client.get("/audit/verify").json()["valid"] is True


def test_a_credential_that_changed_is_told_by_a_digest_of_its_sealed_form(
    admin_client: httpx.Client, made: Made
) -> None:
    backend = made.backend(credential=CANARY)
    body = {name: backend[name] for name in ("name", "base_url", "region")}
    admin_client.put(f"/backends/{backend['id']}", json=body | {"credential": "sk-another-one"})

    _, changed = rows(admin_client, object_id=backend["id"])

    assert set(changed["after"]) == {"credential_sealed"}
    assert changed["after"]["credential_sealed"].startswith("sealed sha256:")
    assert changed["after"] != changed["before"]


def test_what_changes_nothing_and_what_is_refused_leave_no_row(
    admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant()
    body = {name: tenant[name] for name in ("name", "currency", "timezone", "tag_names")}
    before = admin_client.get("/audit/head").json()["seq"]

    admin_client.put(f"/tenants/{tenant['id']}", json=body)
    admin_client.put(f"/tenants/{tenant['id']}", json=body | {"timezone": "Mars/Olympus"})
    admin_client.put(f"/tenants/{tenant['id']}", json=body, headers={"if-match": '"99"'})
    admin_client.post("/tenants", json=body)

    assert admin_client.get("/audit/head").json()["seq"] == before


def test_rows_are_found_by_actor_noun_time_and_request(
    admin_client: httpx.Client, made: Made
) -> None:
    first = made.tenant()
    made.team(first["id"])
    first_row, team_row = rows(admin_client, tenant_id=first["id"])

    by_noun = rows(admin_client, tenant_id=first["id"], noun="teams")
    by_request = rows(admin_client, request_id=team_row["request_id"])
    before = rows(admin_client, tenant_id=first["id"], to=team_row["at"])
    since = rows(admin_client, tenant_id=first["id"], **{"from": team_row["at"]})

    assert by_noun == by_request == since == [team_row]
    assert before == [first_row]
    assert rows(admin_client, actor_id="adm_nobody") == []


def test_the_head_is_an_anchor(admin_client: httpx.Client, made: Made) -> None:
    made.tenant()
    head = admin_client.get("/audit/head").json()
    made.tenant()

    def verified(**anchor: Any) -> httpx.Response:
        return admin_client.get("/audit/verify", params=anchor)

    assert verified(seq=head["seq"], hash=head["hash"]).json()["valid"] is True
    wrong = verified(seq=head["seq"], hash="0" * 64).json()
    assert (wrong["valid"], wrong["first_broken"]) == (False, head["seq"])
    assert verified(seq=10**9, hash="0" * 64).json()["valid"] is False
    assert verified(seq=head["seq"]).status_code == 422
    assert verified(seq=1, hash="zz").status_code == 400


def test_two_admin_processes_that_change_at_once_make_one_chain(
    admin_house: AdminServer, admin_client: httpx.Client
) -> None:
    before = admin_client.get("/audit/head").json()
    with (
        admin_server(admin_house.engine.url.render_as_string(hide_password=False)) as other,
        other.client() as there,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(lambda client: Made(client).tenant(), [admin_client, there] * 15))
        found = there.get("/audit/verify", params={"seq": before["seq"], "hash": before["hash"]})

    assert found.json()["valid"] is True, found.text
    assert found.json()["head"]["seq"] == before["seq"] + 30


@pytest.fixture
def own_house(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


def test_a_row_that_was_changed_by_hand_is_named(own_house: AdminServer) -> None:
    with own_house.client() as client:
        made = Made(client)
        for _ in range(3):
            made.tenant()
        with transaction(own_house.engine) as connection:
            connection.execute(text("DROP TRIGGER audit_rows_stay"))
            connection.execute(
                update(audit_rows).where(audit_rows.c.seq == 2).values(actor_name="nobody")
            )

        found = client.get("/audit/verify").json()

    assert (found["valid"], found["first_broken"], found["checked"]) == (False, 2, 1)
    assert found["reason"] == "its content was changed"
