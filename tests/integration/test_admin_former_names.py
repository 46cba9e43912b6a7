"""Usage can arrive after its key and team are gone: what is billed still says whose it was."""

import csv
import io

import httpx

from gateway.stores.sql import usage
from tests.admin_server import AdminServer, Made
from tests.ledger_events import an_event

NOVEMBER = {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}


def test_usage_of_what_was_deleted_keeps_its_names(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant(currency="USD")
    outer = made.team(tenant["id"], name="platform", cost_center="CC-9")
    inner = made.team(tenant["id"], name="search", parent_id=outer["id"])
    key = made.key(inner["id"], name="desk")
    for gone in (f"/keys/{key['id']}", f"/teams/{inner['id']}", f"/teams/{outer['id']}"):
        assert admin_client.delete(gone).status_code == 204
    late = an_event(
        f"req_{tenant['id']}",
        tenant_id=tenant["id"],
        team_path=(outer["id"], inner["id"]),
        key_id=key["id"],
    )
    usage.record(admin_house.engine, [(late, True)])

    invoice = made.make("invoices", tenant_id=tenant["id"], period="2026-11")
    lines = admin_client.get(f"/invoices/{invoice['id']}/lines.csv").text
    header, *rows = csv.reader(io.StringIO(lines))
    first = dict(zip(header, rows[0], strict=True))
    asked = NOVEMBER | {"group_by": "team,key", "tenant_id": tenant["id"]}
    (sums,) = admin_client.get("/usage", params=asked).json()["items"]

    assert (first["cost_center"], first["team"], first["key"]) == ("CC-9", "search", "desk")
    assert (sums["team_name"], sums["key_name"]) == ("search", "desk")


def test_a_name_that_is_free_again_does_not_take_over_what_was_billed_under_it(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant(currency="USD")
    team = made.team(tenant["id"], name="core")
    old = made.key(team["id"], name="desk")
    assert admin_client.delete(f"/keys/{old['id']}").status_code == 204
    new = made.key(team["id"], name="desk")
    owned = {"tenant_id": tenant["id"], "team_path": (team["id"],)}
    for number, key in enumerate((old, new, new)):
        event = an_event(f"req_{tenant['id']}_{number}", key_id=key["id"], **owned)
        usage.record(admin_house.engine, [(event, True)])

    asked = NOVEMBER | {"group_by": "key", "tenant_id": tenant["id"]}
    items = admin_client.get("/usage", params=asked).json()["items"]

    by_id = {item["key"]: (item["key_name"], item["requests"]) for item in items}
    assert by_id == {old["id"]: ("desk", 1), new["id"]: ("desk", 2)}
