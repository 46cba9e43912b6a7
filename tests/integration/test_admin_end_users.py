"""Somebody who uses a tenant's apps asks what is kept of him, and wants it gone."""

from typing import Any

import httpx
import pytest
from sqlalchemy import select

from billing.usage import UsageEvent
from gateway.pseudonyms import Pseudonyms
from gateway.stores.sql import books, pseudonym_keys, usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.seal import Sealer
from tests.admin_server import SEALING_KEY, AdminServer, Made, refused
from tests.invoicing import october

ADA = {"user": "ada@example.com"}


class Kept:
    """A tenant that keeps pseudonyms, and its end users' requests, booked as workers would."""

    def __init__(self, server: AdminServer, client: httpx.Client, made: Made) -> None:
        self._server, self._client = server, client
        self.tenant = made.tenant(currency="USD", end_users="pseudonym")
        self._n = 0

    @property
    def keys(self) -> list[Pseudonyms]:
        with reading(self._server.engine) as connection:
            found = pseudonym_keys.of_tenant(connection, self.tenant["id"])
        return pseudonym_keys.opened(Sealer(SEALING_KEY), found)

    def asks(self, name: str, times: int = 1, **changes: Any) -> list[UsageEvent]:
        """By the key in force."""
        events = [self._event(name, **changes) for _ in range(times)]
        usage.record(self._server.engine, [(event, True) for event in events])
        return events

    def _event(self, name: str, **changes: Any) -> UsageEvent:
        self._n += 1
        request = f"req_{self.tenant['id']}_{self._n}"
        pseudonym = self.keys[-1].of(name)
        given = {"tenant_id": self.tenant["id"], "team_path": ("team_x",), "end_user": pseudonym}
        return october(request, **given | changes)

    def post(self, verb: str, **body: Any) -> Any:
        answer = self._client.post(f"/tenants/{self.tenant['id']}/end-users/{verb}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def kept(admin_house: AdminServer, admin_client: httpx.Client, made: Made) -> Kept:
    return Kept(admin_house, admin_client, made)


def test_somebody_is_found_and_told_every_request(kept: Kept) -> None:
    events = kept.asks(ADA["user"], 3)
    kept.asks("bob")

    found = kept.post("find", **ADA)
    (subject,) = found["end_users"]
    assert [each["requests"] for each in found["amounts"]] == [3]

    first = kept.post("export", **ADA, limit=2)
    rest = kept.post("export", end_user=subject, limit=2, cursor=first["next"])
    told = [*first["items"], *rest["items"]]
    assert sorted(each["request_id"] for each in told) == [each.request_id for each in events]
    assert {each["end_user"] for each in told} == {subject}
    assert rest["next"] is None
    assert kept.post("export", user="nobody")["items"] == []


def test_an_erasure_says_what_it_did_and_what_stays_and_may_be_done_again(
    kept: Kept, admin_house: AdminServer, admin_client: httpx.Client
) -> None:
    kept.asks(ADA["user"], 2)
    found = kept.post("find", **ADA)
    (subject,) = found["end_users"]

    gone = kept.post("erase", **ADA)

    assert (gone["erased"], gone["stays"]) == (1, found["amounts"])
    assert "no invoice changes" in gone["note"]
    assert kept.post("find", **ADA) == {"end_users": [], "amounts": []}
    again = kept.post("erase", **ADA)
    assert (again["erased"], again["stays"]) == (0, [])
    assert kept.post("erase", end_user=subject)["erased"] == 0
    with reading(admin_house.engine) as connection:
        assert books.check(connection).faults == ()
    # Chargeback has the amounts as before, by a pseudonym that leads to nobody.
    asked = {"tenant_id": kept.tenant["id"], "from": "2026-10-01T00:00:00Z", "group_by": "end_user"}
    (row,) = admin_client.get("/usage", params=asked).json()["items"]
    assert (row["end_user"], row["requests"]) == (subject, 2)
    listed = admin_client.get("/usage/requests", params=asked | {"end_user": subject, "limit": 9})
    refused(listed, 400, "group_by")


def test_every_look_and_erasure_is_in_the_audit_chain_without_saying_whose(
    kept: Kept, admin_client: httpx.Client
) -> None:
    kept.asks(ADA["user"])
    (subject,) = kept.post("find", **ADA)["end_users"]
    kept.post("export", **ADA)
    kept.post("erase", **ADA)

    newest = admin_client.get("/audit", params={"order": "desc", "limit": 3}).json()["items"]
    assert [each["operation"].rpartition("/")[2] for each in newest] == ["erase", "export", "find"]
    assert {each["object_id"] for each in newest} == {kept.tenant["id"]}
    for each in newest:
        assert each["after"]["pseudonyms"] == each["after"]["requests"] == 1
        assert ADA["user"] not in str(each)
        assert subject not in str(each)


def test_a_renewed_key_makes_other_pseudonyms_and_all_of_somebodys_are_found(kept: Kept) -> None:
    kept.asks(ADA["user"])
    (before,) = kept.post("find", **ADA)["end_users"]

    assert kept.post("rotate") == {"key_version": 2, "forgotten": 0}
    kept.asks(ADA["user"])

    first, second = kept.post("find", **ADA)["end_users"]
    assert (first, first != second) == (before, True)
    assert kept.post("erase", **ADA)["erased"] == 2


def test_forgetting_the_keys_before_erases_everybody_they_knew(kept: Kept) -> None:
    kept.asks(ADA["user"])
    kept.asks("bob")

    assert kept.post("rotate", forget=True) == {"key_version": 2, "forgotten": 1}

    assert len(kept.keys) == 1, "the key before is gone, sealed as it was"
    assert kept.post("find", **ADA)["end_users"] == []
    kept.asks("bob")
    assert len(kept.post("find", user="bob")["end_users"]) == 1


def test_a_key_that_does_not_open_is_said(
    kept: Kept, admin_house: AdminServer, admin_client: httpx.Client
) -> None:
    with admin_house.engine.begin() as connection:
        key = pseudonym_keys.pseudonym_keys
        mine = key.c.tenant_id == kept.tenant["id"]
        sealed = connection.scalar(select(key.c.credential_sealed).where(mine)) or b""
        other = Sealer(b"o" * 32).seal("x", "y")
        assert sealed[:5] != other[:5]
        connection.execute(key.update().where(mine).values(credential_sealed=other))

    for verb in ("find", "export", "erase"):
        answer = admin_client.post(f"/tenants/{kept.tenant['id']}/end-users/{verb}", json=ADA)
        refused(answer, 409)
        assert "METERHOUSE_SECRET_KEY" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "user"),
        ({"user": "a", "end_user": f"eu_{'0' * 26}"}, 422, "user"),
        ({"user": ""}, 400, "user"),
        ({"end_user": "ada"}, 400, "end_user"),
        ({"name": "ada"}, 400, "name"),
    ],
)
def test_a_question_names_one_person(
    kept: Kept, admin_client: httpx.Client, body: dict[str, Any], status: int, field: str
) -> None:
    for verb in ("find", "erase"):
        path = f"/tenants/{kept.tenant['id']}/end-users/{verb}"
        refused(admin_client.post(path, json=body), status, field)


def test_a_tenant_that_keeps_nothing_has_nobody(admin_client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    path = f"/tenants/{tenant['id']}/end-users"

    assert tenant["end_users"] == "off"
    assert admin_client.post(f"{path}/erase", json=ADA).json()["erased"] == 0
    refused(admin_client.post(f"{path}/rotate"), 409)
    nowhere = f"/tenants/tenant_{'0' * 26}/end-users"
    for verb in ("find", "export", "erase"):
        refused(admin_client.post(f"{nowhere}/{verb}", json=ADA), 404)


def test_a_tenant_is_deleted_with_its_key(admin_client: httpx.Client, made: Made) -> None:
    tenant = made.tenant(end_users="pseudonym")

    assert admin_client.delete(f"/tenants/{tenant['id']}").status_code == 204
