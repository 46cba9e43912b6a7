"""What a tenant committed to, over HTTP: agreed, drawn on, told, and never cut short."""

import calendar
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing.meters import Meters
from gateway.clock import parse_rfc3339
from gateway.stores.sql import usage
from tests.admin_server import AdminServer, Made, refused
from tests.ledger_events import an_event

QUARTER = {"amount": "300.00", "term": "quarter", "first_day": "2026-07-01", "prepaid": True}


@pytest.fixture
def agreed(made: Made) -> dict[str, Any]:
    """Of a tenant of its own: the tests share one server."""
    return QUARTER | {"tenant_id": made.tenant(currency="USD")["id"]}


def test_a_commitment_that_has_begun_stays_and_a_later_one_begins_with_a_term(
    admin_client: httpx.Client, made: Made, agreed: dict[str, Any]
) -> None:
    begun = made.make("commitments", **agreed)
    path = f"/commitments/{begun['id']}"

    assert (begun["amount"], begun["overage_percent"], begun["state"]) == ("300", "100", "approved")
    assert admin_client.put(path, json=begun).json() == begun
    changed = admin_client.put(path, json=agreed | {"amount": "1"})
    refused(changed, 409)
    assert changed.json()["code"] == "immutable"
    refused(admin_client.post("/commitments", json=agreed), 409)
    inside = agreed | {"first_day": "2999-02-01"}
    cut = admin_client.post("/commitments", json=inside)
    refused(cut, 409)
    assert cut.json()["code"] == "term_running"
    later = made.make("commitments", **agreed | {"first_day": "2999-04-01"})
    earlier = admin_client.post("/commitments", json=agreed | {"first_day": "2998-02-01"})
    assert earlier.json()["code"] == "term_running"
    refused(admin_client.delete(f"/tenants/{agreed['tenant_id']}"), 409)
    assert admin_client.delete(f"/commitments/{later['id']}").status_code == 204
    assert admin_client.delete(path).status_code == 204, "no invoice was issued by it"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"amount": "1.001"}, "amount"),
        ({"overage_percent": "1001"}, "overage_percent"),
        ({"rollover_percent": "101"}, "rollover_percent"),
        ({"first_day": "2026-02-30"}, "first_day"),
        ({"first_day": "1026-07-01"}, "first_day"),
        ({"last_day": "2026-06-30"}, "last_day"),
        ({"tenant_id": "tenant_01aaaaaaaaaaaaaaaaaaaaaaaa"}, "tenant_id"),
    ],
)
def test_what_cannot_be_agreed_is_refused_by_name(
    admin_client: httpx.Client, agreed: dict[str, Any], given: dict[str, Any], field: str
) -> None:
    refused(admin_client.post("/commitments", json=agreed | given), 422, field)


def test_what_is_odd_is_agreed_by_two(
    admin_house: AdminServer, made: Made, agreed: dict[str, Any]
) -> None:
    role = {"role": "platform_admin"}
    first, second = (made.make("admin-tokens", name=made.name(), **role) for _ in range(2))
    odd = agreed | {"overage_percent": "20", "first_day": "2999-01-01"}
    with admin_house.client(first["secret"]) as one, admin_house.client(second["secret"]) as two:
        refused(one.post("/commitments", json=odd), 422, "amount")
        draft = one.post("/commitments", json=odd | {"state": "draft"}).json()
        path = f"/commitments/{draft['id']}"
        refused(one.put(path, json=odd | {"state": "approved"}), 422, "state")
        assert one.post(f"{path}/approve").json()["code"] == "four_eyes"
        assert two.post(f"{path}/approve").json()["state"] == "approved"
        usual = one.post("/commitments", json=agreed | {"state": "draft"}).json()
        assert one.post(f"/commitments/{usual['id']}/approve").json()["state"] == "approved"


def test_its_terms_say_what_issued_invoices_have_of_them(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made, agreed: dict[str, Any]
) -> None:
    tenant_id = agreed["tenant_id"]
    team = made.team(tenant_id)
    whose = {"tenant_id": tenant_id, "team_path": (team["id"],)}
    whose |= {"key_id": made.key(team["id"])["id"]}
    at_us = parse_rfc3339("2026-07-14T12:00:00Z")
    event = an_event(
        f"req_{made.name()}", admitted_at_us=at_us, usage=Meters(input=20_000_000), **whose
    )
    usage.record(admin_house.engine, [(event, True)])
    begun = made.make("commitments", **agreed)
    draft = made.make("invoices", tenant_id=tenant_id, period="2026-07")

    issued = admin_client.post(f"/invoices/{draft['id']}/issue", json={})

    assert (issued.status_code, issued.json()["total"]) == (200, "300.00")
    first, *_ = admin_client.get(f"/commitments/{begun['id']}").json()["terms"]
    assert first == {
        "id": f"{begun['id']}/2026-07-01", "first_day": "2026-07-01", "last_day": "2026-09-30",
        "committed": "300", "charged": "300", "used": "60", "unused": "0", "open": "240",
        "overage": "0",
    }  # fmt: skip
    kept = admin_client.delete(f"/commitments/{begun['id']}")
    assert kept.json()["code"] == "immutable"
    back = admin_client.post("/commitments", json=agreed | {"first_day": "2026-07-31"})
    refused(back, 409)
    page = admin_client.get(f"/invoices/{draft['id']}/page.html").text
    assert "Commitment from 1 July 2026 to 30 September 2026" in page
    assert "Paid before by the commitment" in page
    focus = admin_client.get(f"/invoices/{draft['id']}/focus.csv?version=1.2").text
    assert "Purchase" in focus
    lines = admin_client.get(f"/invoices/{draft['id']}/lines?line_kind=drawdown").json()["items"]
    assert [line["amount"] for line in lines] == ["-60"]


def test_what_was_billed_before_its_first_day_stays_as_it_was_agreed(
    admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant(currency="USD", timezone="Etc/UTC")["id"]
    today = datetime.now(UTC).date()
    last = today.replace(day=calendar.monthrange(today.year, today.month)[1])
    agreed = QUARTER | {"tenant_id": tenant, "first_day": str(last), "term": "month"}
    path = f"/commitments/{made.make('commitments', **agreed)['id']}"
    draft = made.make("invoices", tenant_id=tenant, period=str(today)[:7])
    invoice = admin_client.post(f"/invoices/{draft['id']}/issue", json={"early": True}).json()

    (term,) = admin_client.get(path).json()["terms"]
    assert Decimal(term["charged"]) == Decimal(invoice["total"]) > 0
    for answer in (
        admin_client.put(path, json=agreed | {"state": "draft"}),
        admin_client.put(path, json=agreed | {"amount": "1"}),
        admin_client.delete(path),
    ):
        refused(answer, 409)
        assert answer.json()["code"] == "immutable"
    admin_client.post(f"/invoices/{draft['id']}/void", json={"reason": "too early"})
    assert admin_client.delete(path).status_code == 204
