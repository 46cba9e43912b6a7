"""Tenants, teams and keys: what may be, and what belongs to what."""

from typing import Any

import httpx
import pytest

from gateway import keyring
from gateway.stores.sql import configuration
from tests.admin_server import PEPPERS, AdminServer, Made, refused

MISSING = "00000000000000000000000000"


def test_a_tenants_currency_is_fixed_once_money_is_kept_in_it(
    admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant()
    path = f"/tenants/{tenant['id']}"
    body = {"name": tenant["name"], "currency": "USD", "timezone": "UTC"}

    free = admin_client.put(path, json=body)
    made.make("budgets", scope={"tenant": tenant["id"]}, amount="1", period="day")
    bound = admin_client.put(path, json=body | {"currency": "EUR"})

    assert free.status_code == 200
    refused(bound, 409)


def test_a_name_is_given_once(admin_client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    made.team(tenant["id"])

    refused(admin_client.post("/teams", json={"tenant_id": tenant["id"], "name": "core"}), 409)
    same = {"name": tenant["name"], "currency": "EUR", "timezone": "UTC"}
    refused(admin_client.post("/tenants", json=same), 409)


def test_teams_nest_within_their_tenant_and_never_in_a_circle(
    admin_client: httpx.Client, made: Made
) -> None:
    tenant, other = made.tenant(), made.tenant(name="other")
    outer = made.team(tenant["id"], name="outer")
    inner = made.team(tenant["id"], name="inner", parent_id=outer["id"])
    innermost = made.team(tenant["id"], name="innermost", parent_id=inner["id"])
    foreign = made.team(other["id"], name="foreign")

    def put(parent_id: str, tenant_id: str = tenant["id"]) -> httpx.Response:
        body = {"tenant_id": tenant_id, "name": "outer", "parent_id": parent_id}
        return admin_client.put(f"/teams/{outer['id']}", json=body)

    for parent in (outer, inner, innermost, foreign):
        refused(put(parent["id"]), 422, "parent_id")
    refused(put(f"team_{MISSING}"), 422, "parent_id")
    refused(put(foreign["id"], other["id"]), 422, "tenant_id")


def test_a_team_weighs_a_whole_number_and_one_unless_somebody_says_more(
    admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant()
    team = made.team(tenant["id"])
    body = {"tenant_id": tenant["id"], "name": "core"}

    heavier = admin_client.put(f"/teams/{team['id']}", json=body | {"weight": 1_000})

    assert (team["weight"], heavier.json()["weight"]) == (1, 1_000)
    for weight in (0, -1, 1_001, 1.5, "2"):
        answer = admin_client.put(f"/teams/{team['id']}", json=body | {"weight": weight})
        refused(answer, 400, "weight")
    assert admin_client.get(f"/teams/{team['id']}").json()["weight"] == 1_000


def test_teams_nest_eight_deep_at_most(admin_client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    parent = None
    for level in range(8):
        parent = made.team(tenant["id"], name=f"level {level}", parent_id=parent)["id"]

    body = {"tenant_id": tenant["id"], "name": "one more", "parent_id": parent}
    refused(admin_client.post("/teams", json=body), 422, "parent_id")


def test_what_others_refer_to_is_not_deleted(admin_client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    outer = made.team(tenant["id"], name="outer")
    inner = made.team(tenant["id"], name="inner", parent_id=outer["id"])
    key = made.key(inner["id"])
    limit = made.make("limits", scope={"key": key["id"]}, requests_per_minute=1)
    backend = made.backend()
    model = made.model(backend["id"])
    order = [
        ("limits", limit), ("keys", key), ("teams", inner), ("teams", outer), ("tenants", tenant),
    ]  # fmt: skip

    for noun, each in reversed(order[1:]):
        answer = admin_client.delete(f"/{noun}/{each['id']}")
        refused(answer, 409)
        assert answer.json()["code"] == "in_use"
    refused(admin_client.delete(f"/backends/{backend['id']}"), 409)
    for noun, each in [*order, ("models", model), ("backends", backend)]:
        assert admin_client.delete(f"/{noun}/{each['id']}").status_code == 204


def test_a_keys_secret_is_shown_once_and_only_its_hash_is_kept(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    key = made.key(made.team(made.tenant()["id"])["id"])
    presented = keyring.parse(key["secret"].encode())
    assert presented is not None

    secrets = configuration.load(admin_house.engine).secrets
    (kept,) = [each for each in secrets if each.key_id == key["id"]]

    assert kept.public_id == presented.public_id == key["secrets"][0]["id"]
    assert kept.pepper_version == 2
    assert keyring.matches(PEPPERS.by_version[2], presented.secret, kept.digest)
    for answer in (admin_client.get(f"/keys/{key['id']}"), admin_client.get("/keys")):
        assert presented.secret.decode() not in answer.text


def test_a_rotated_key_has_two_secrets_for_a_while_and_a_revoked_one_none(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    key = made.key(made.team(made.tenant()["id"])["id"])
    path = f"/keys/{key['id']}"

    rotated = admin_client.post(f"{path}/rotate", json={"overlap_seconds": 60}).json()
    old, new = rotated["secrets"]
    assert old["expires_at"] is not None
    assert new["expires_at"] is None
    assert rotated["secret"] != key["secret"]

    at_once = admin_client.post(f"{path}/rotate", json={"overlap_seconds": 0}).json()
    assert len(at_once["secrets"]) == 1

    revoked = admin_client.post(f"{path}/revoke")
    assert revoked.json()["revoked_at"] is not None
    assert admin_client.post(f"{path}/revoke").json() == revoked.json()
    alive = [each.key_id for each in configuration.load(admin_house.engine).secrets]
    assert key["id"] not in alive
    refused(admin_client.post(f"{path}/rotate"), 409)


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"expires_at": "tomorrow"}, 422, "expires_at"),
        ({"expires_at": "2026-01-01T00:00:00"}, 422, "expires_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, 422, "expires_at"),
        ({"expires_at": "2999-13-01T00:00:00Z"}, 422, "expires_at"),
        ({"scopes": {"cidrs": ["10.0.0.1/8"]}}, 422, "scopes.cidrs[0]"),
        ({"scopes": {"models": ["a", "a"]}}, 422, "scopes.models"),
        ({"scopes": {"routes": []}}, 400, "scopes.routes"),
        ({"team_id": f"team_{MISSING}"}, 422, "team_id"),
    ],
)
def test_a_key_that_cannot_be_meant_is_refused(
    admin_client: httpx.Client, made: Made, fields: dict[str, Any], status: int, field: str
) -> None:
    team = made.team(made.tenant()["id"])

    refused(
        admin_client.post("/keys", json={"team_id": team["id"], "name": "app"} | fields),
        status,
        field,
    )
