"""What backends cost the operator, and the margin on it, is nowhere in what a tenant is shown: no
report, export, explanation or column. Unless the operator says so.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from billing.meters import Meters
from gateway import clock
from gateway.admin.api import operations
from gateway.stores.sql import usage
from tests.admin_server import AdminServer, Made, admin_server
from tests.ledger_events import a_card, an_event

COST, MARGIN = "7.777777", "1.222223"  # of the one request, which is charged 9
LOST = "3.333333"  # of an attempt that did not win
EXPECTED = "0.00777777"  # of a thousand tokens
ROLES = ("finance", "tenant_admin", "auditor")


class Shop:
    """A tenant with a request, an invoice of it, and everybody who may look at it."""

    def __init__(self, server: AdminServer, admin: httpx.Client) -> None:
        self.server, self.admin, made = server, admin, Made(admin)
        tenant = made.tenant(currency="USD", timezone="UTC")
        team = made.team(tenant["id"])
        self.key = made.key(team["id"])
        backend = made.backend()
        self.model = made.model(backend["id"], name="chat")
        asked = {"meter": "input", "currency": "USD"}
        whose = {"backend_id": backend["id"], "upstream_model": "m"}
        made.make("prices", book="cost", amount_per_million="7.777777", **whose, **asked)
        made.make("prices", book="charge", model="chat", amount_per_million="9", **asked)
        made.make("budgets", scope={"tenant": tenant["id"]}, amount="50", period="month")
        at_us = clock.now_us()
        common: dict[str, Any] = {
            "tenant_id": tenant["id"],
            "team_path": (team["id"],),
            "key_id": self.key["id"],
            "backend_id": backend["id"],
            "admitted_at_us": at_us,
            "finished_at_us": at_us,
            "usage": Meters(input=1_000_000),
            "charge_card": a_card(9 * 10**6, 1, "list"),
        }
        lost = a_card(3_333_333, 1, "lost")
        winner = an_event("req_1", cost_card=a_card(7_777_777, 1, "won"), **common)
        loser = an_event("req_1", attempt=2, winner=False, cost_card=lost, **common)
        usage.record(server.engine, [(winner, True), (loser, True)])
        self.month = datetime.fromtimestamp(at_us / 10**6, UTC).strftime("%Y-%m")
        body = {"tenant_id": tenant["id"], "period": self.month}
        draft = made.make("invoices", **body)
        admin.post(f"/invoices/{draft['id']}/issue", json={"early": True})
        self.ids = {
            "invoices": draft["id"], "tenants": tenant["id"], "teams": team["id"],
            "keys": self.key["id"], "backends": backend["id"], "models": self.model["id"],
        }  # fmt: skip
        made_for = {"scope": {"tenant": tenant["id"]}}
        self.people = {
            role: made.make("admin-tokens", name=role, role=role, **made_for) for role in ROLES
        }

    def paths(self) -> Iterator[str]:
        """Whatever can be read, of what there is."""
        for each in operations():
            noun = each.path.split("/")[1]
            if each.method == "GET" and ("{id}" not in each.path or noun in self.ids):
                yield each.path.replace("{id}", self.ids.get(noun, ""))
        yield "/reports/margin?group_by=team,model,backend,day"
        yield f"/invoices/{self.ids['invoices']}/focus.csv?version=1.4"

    def told(self, client: httpx.Client) -> Iterator[tuple[str, str]]:
        for path in self.paths():
            for accept in ("application/json", "text/csv"):
                answer = client.get(path, headers={"accept": accept})
                if answer.is_success:
                    yield path.partition("?")[0], answer.text
        asked = {"key_id": self.key["id"], "model": "chat", "input_tokens": 1000, "max_tokens": 1}
        explained = client.post("/policies/explain", json=asked)
        if explained.is_success:
            yield "/policies/explain", explained.text

    def that_tell(self, client: httpx.Client) -> set[str]:
        """The paths whose answers hold a cost or margin."""
        secret = (COST, MARGIN, LOST, EXPECTED, "11.11111", "-2.11111")
        return {path for path, text in self.told(client) if any(each in text for each in secret)}


def shop(path: Path, *, tenants_see_cost: bool) -> Iterator[Shop]:
    url = f"sqlite:///{path / 'ledger.sqlite'}"
    with (
        admin_server(url, tenants_see_cost=tenants_see_cost) as server,
        server.client() as admin,
    ):
        yield Shop(server, admin)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    yield from shop(tmp_path_factory.mktemp("closed"), tenants_see_cost=False)


OF_USAGE = {"/usage", "/usage/requests", "/reports/margin", "/reports/journal"}


def test_the_platform_sees_what_it_pays(closed: Shop) -> None:
    told = closed.that_tell(closed.admin)

    assert told >= OF_USAGE | {"/prices", "/policies/explain"}


@pytest.mark.parametrize("role", ROLES)
def test_no_answer_to_a_tenant_has_it(closed: Shop, role: str) -> None:
    with closed.server.client(closed.people[role]["secret"]) as client:
        told = closed.that_tell(client)
        (sums,) = client.get("/usage").json()["items"]
        (margin,) = client.get("/reports/margin").json()["items"]
        columns = client.get("/usage", headers={"accept": "text/csv"}).text.splitlines()
        (request,) = client.get("/usage/requests").json()["items"]

    assert told == set()
    assert (sums["charge"], sums["cost"]) == ("9", None)
    assert (margin["charge"], margin["charge_per_million"]) == ("9", "9")
    hidden = ("cost", "lost_cost", "margin", "margin_percent", "cost_per_million")
    assert [margin[name] for name in hidden] == [None] * 5
    assert columns[0].endswith("charge,cost,currency")
    assert columns[1].endswith(",9,,USD")
    assert [each["cost_card"] for each in request["attempts"]] == [None, None]


def test_where_the_operator_says_so_tenants_see_it(tmp_path: Path) -> None:
    for opened in shop(tmp_path, tenants_see_cost=True):
        with opened.server.client(opened.people["finance"]["secret"]) as client:
            assert opened.that_tell(client) >= OF_USAGE
