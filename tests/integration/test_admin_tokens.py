"""Admin tokens: shown once, hashed, rotated, revoked at once everywhere, never more than their
maker; and who fails too often waits, without locking out anybody else.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from gateway import keyring
from gateway.admin.failures import BURST
from gateway.stores.sql import admin_tokens
from gateway.stores.sql.engine import reading
from tests.admin_server import PEPPERS, TOKEN, AdminServer, Made, admin_server, refused

LATER = "2099-01-01T00:00:00Z"


@pytest.fixture
def other_process(
    request: pytest.FixtureRequest, admin_house: AdminServer
) -> Iterator[AdminServer]:
    """Another admin process on the same database."""
    with admin_server(admin_house.engine.url.render_as_string(hide_password=False)) as server:
        yield server


@pytest.fixture
def tenant(made: Made) -> dict[str, Any]:
    return made.tenant()


def token(
    made: Made, role: str, scope: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    fields = {"name": made.name(), "role": role} | ({} if scope is None else {"scope": scope})
    return made.make("admin-tokens", **fields | more)


def tenants_seen(server: AdminServer, secret: str) -> int:
    with server.client(secret) as client:
        return client.get("/tenants").status_code


def test_a_secret_is_shown_once_and_kept_as_a_keyed_hash(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    new = token(made, "auditor")

    secret = new["secret"]
    presented = keyring.parse_admin(secret.encode())
    assert presented is not None
    assert secret.startswith(f"mha_{new['secrets'][0]['id']}_")
    for path in (f"/admin-tokens/{new['id']}", "/admin-tokens?limit=200", "/audit?limit=200"):
        assert secret[21:64] not in admin_client.get(path).text
    with reading(admin_house.engine) as connection:
        found = admin_tokens.known(connection, presented.public_id)
        kept = json.dumps([list(map(str, row)) for row in connection.execute(
            text("SELECT * FROM admin_token_secrets"))])  # fmt: skip
    assert found is not None
    assert secret[21:64] not in kept
    assert found.secret.pepper_version == PEPPERS.current
    assert found.secret.digest == keyring.digest(b"2" * 32, presented.secret)


def test_what_is_kept_of_a_token_opens_nothing(admin_house: AdminServer, made: Made) -> None:
    new = token(made, "auditor")
    with reading(admin_house.engine) as connection:
        found = admin_tokens.known(connection, new["secrets"][0]["id"])
    assert found is not None

    digest = found.secret.digest.hex()
    for wrong in (digest, f"mha_{digest}", new["id"], new["secret"][:-1], new["secret"].upper()):
        assert tenants_seen(admin_house, wrong) in {401, 429}


def test_a_token_that_is_revoked_is_refused_by_the_next_request_to_any_process(
    admin_house: AdminServer, other_process: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    new = token(made, "platform_admin")
    with admin_house.client(new["secret"]) as here, other_process.client(new["secret"]) as there:
        assert [each.get("/tenants").status_code for each in (here, there)] == [200, 200]

        revoked = admin_client.post(f"/admin-tokens/{new['id']}/revoke")

        assert revoked.json()["revoked_at"] is not None
        assert [each.get("/tenants").status_code for each in (here, there)] == [401, 401]
    refused(admin_client.post(f"/admin-tokens/{new['id']}/rotate"), 409)


def test_rotation_overlaps_and_ends(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    first = token(made, "auditor")
    path = f"/admin-tokens/{first['id']}"

    second = admin_client.post(f"{path}/rotate", json={"overlap_seconds": 600}).json()
    seen = [tenants_seen(admin_house, each["secret"]) for each in (first, second)]
    third = admin_client.post(f"{path}/rotate", json={"overlap_seconds": 0}).json()

    assert seen == [200, 200]
    assert len(third["secrets"]) == 1
    assert [tenants_seen(admin_house, each["secret"]) for each in (first, second, third)] == [
        401, 401, 200,
    ]  # fmt: skip


def test_a_token_ends_by_the_clock_and_by_deletion(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    new = token(made, "auditor", expires_at=LATER)
    path = f"/admin-tokens/{new['id']}"
    past = {"name": new["name"], "role": "auditor", "expires_at": "2020-01-01T00:00:00Z"}

    refused(admin_client.post("/admin-tokens", json=past | {"name": "late"}), 422, "expires_at")
    assert tenants_seen(admin_house, new["secret"]) == 200
    assert admin_client.put(path, json=past).status_code == 200
    assert tenants_seen(admin_house, new["secret"]) == 401
    assert admin_client.delete(path).status_code == 204
    assert admin_client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("role", "at"),
    [
        ("platform_admin", "tenant"),
        ("platform_admin", "team"),
        ("tenant_admin", None),
        ("tenant_admin", "team"),
        ("team_admin", None),
        ("team_admin", "tenant"),
        ("finance", "team"),
        ("auditor", "team"),
    ],
)
def test_a_role_stands_only_where_it_can(
    admin_client: httpx.Client, made: Made, tenant: dict[str, Any], role: str, at: str | None
) -> None:
    ids = {"tenant": tenant["id"], "team": made.team(tenant["id"])["id"]}
    scope = None if at is None else {at: ids[at]}

    answer = admin_client.post("/admin-tokens", json={"name": "x", "role": role, "scope": scope})

    refused(answer, 422, "scope")


def test_role_and_scope_of_a_token_never_change(
    admin_client: httpx.Client, made: Made, tenant: dict[str, Any]
) -> None:
    new = token(made, "finance", {"tenant": tenant["id"]})
    path, same = f"/admin-tokens/{new['id']}", {"name": "renamed", "role": "finance"}

    wider = admin_client.put(path, json=same)
    other = admin_client.put(path, json=same | {"role": "auditor", "scope": new["scope"]})
    renamed = admin_client.put(path, json=same | {"scope": new["scope"]})

    refused(wider, 422, "role")
    refused(other, 422, "role")
    assert renamed.json()["name"] == "renamed"


def test_a_token_holds_on_to_its_tenant_and_team(admin_client: httpx.Client, made: Made) -> None:
    tenant_id = made.tenant()["id"]
    team_id = made.team(tenant_id)["id"]
    new = token(made, "team_admin", {"team": team_id})

    paths = (f"/teams/{team_id}", f"/tenants/{tenant_id}")
    held = [admin_client.delete(path).status_code for path in paths]
    admin_client.delete(f"/admin-tokens/{new['id']}")
    freed = [admin_client.delete(path).status_code for path in paths]

    assert (held, freed) == ([409, 409], [204, 204])


def test_nobody_makes_a_token_that_may_do_more_than_himself(
    admin_house: AdminServer, made: Made, tenant: dict[str, Any]
) -> None:
    own, foreign = {"tenant": tenant["id"]}, {"tenant": made.tenant()["id"]}
    team = {"team": made.team(tenant["id"])["id"]}
    mine = token(made, "tenant_admin", own)["secret"]

    with admin_house.client(mine) as client:

        def make(role: str, scope: dict[str, str] | None) -> int:
            body = {"name": made.name(), "role": role, "scope": scope}
            return client.post("/admin-tokens", json=body).status_code

        assert make("platform_admin", None) == 403
        assert make("auditor", None) == 403
        assert make("finance", None) == 403
        assert make("tenant_admin", foreign) == 422
        assert make("auditor", foreign) == 422
        assert make("team_admin", team) == 201
        assert make("finance", own) == 201
        assert make("tenant_admin", own) == 201


def test_who_is_asking_can_be_asked(
    admin_house: AdminServer, made: Made, tenant: dict[str, Any]
) -> None:
    new = token(made, "tenant_admin", {"tenant": tenant["id"]})

    with admin_house.client(new["secret"]) as client:
        mine = client.get("/whoami").json()
    with admin_house.client() as client:
        whole = client.get("/whoami").json()

    assert (mine["id"], mine["role"], mine["scope"]) == (new["id"], "tenant_admin", new["scope"])
    assert mine["rights"]["teams:change"] == ["below"]
    assert "prices:change" not in mine["rights"]
    assert (whole["id"], whole["role"], whole["scope"]) == ("bootstrap", "platform_admin", None)


def fail(server: AdminServer, address: str, secret: str = "mha_wrong") -> httpx.Response:
    with server.client(secret, address) as client:
        return client.get("/tenants")


def test_who_fails_too_often_waits_and_nobody_else_does(
    admin_house: AdminServer, made: Made
) -> None:
    secret = token(made, "auditor")["secret"]
    answers = [fail(admin_house, "192.0.2.77") for _ in range(BURST + 3)]

    last = answers[-1]
    assert [each.status_code for each in answers] == [401] * BURST + [429] * 3
    assert (last.json()["code"], last.headers["content-type"]) == (
        "too_many_failures", "application/problem+json",
    )  # fmt: skip
    assert 1 <= int(last.headers["retry-after"]) <= 6
    assert fail(admin_house, "192.0.2.77", secret).status_code == 429, "even with a good token"
    assert fail(admin_house, "192.0.2.78", secret).status_code == 200
    assert fail(admin_house, "192.0.2.78", TOKEN).status_code == 200
    assert admin_house.refusals[-1] == "too_many_failures"


def test_many_attempts_at_once_are_counted_one_by_one(admin_house: AdminServer) -> None:
    """As many as are sent before the first is answered."""
    guesses = [keyring.make("mha").text for _ in range(40)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda guess: fail(admin_house, "192.0.2.90", guess), guesses))

    assert sorted(each.status_code for each in answers).count(401) <= BURST + 2


def test_who_was_let_in_from_an_address_stays_in_whatever_his_neighbours_do(
    admin_house: AdminServer, made: Made
) -> None:
    secret = token(made, "auditor")["secret"]
    assert fail(admin_house, "192.0.2.80", secret).status_code == 200

    for _ in range(BURST + 1):
        fail(admin_house, "192.0.2.80")

    assert fail(admin_house, "192.0.2.80").status_code == 429
    assert fail(admin_house, "192.0.2.80", secret).status_code == 200


def test_a_token_that_everybody_guesses_at_is_heard_from_its_owner(
    admin_house: AdminServer, made: Made
) -> None:
    secret = token(made, "auditor")["secret"]
    guesses = [keyring.make("mha").text for _ in range(2 * BURST)]
    for number, guess in enumerate(guesses):
        signed = f"{secret[:20]}{guess[20:64]}"
        well_formed = f"{signed}_{keyring._checksum(signed.encode()).decode()}"
        assert fail(admin_house, f"198.51.100.{number}", well_formed).status_code == 401
        if number >= BURST:
            assert fail(admin_house, f"198.51.100.{number}", well_formed).status_code == 429

    assert fail(admin_house, "192.0.2.81", secret).status_code == 200


def test_a_request_without_a_token_is_no_guess(admin_house: AdminServer) -> None:
    with admin_house.client(None, "192.0.2.82") as client:
        answers = {client.get("/tenants").status_code for _ in range(3 * BURST)}

    assert answers == {401}


def test_refusals_are_logged_without_secrets(
    admin_house: AdminServer, made: Made, caplog: pytest.LogCaptureFixture, tenant: dict[str, Any]
) -> None:
    new = token(made, "finance", {"tenant": tenant["id"]})
    caplog.clear()

    with admin_house.client(new["secret"]) as client:
        denied = client.post("/tenants", json={})
    wrong = keyring.make("mha").text
    fail(admin_house, "192.0.2.83", wrong)

    text = caplog.text
    assert denied.status_code == 403
    assert f"POST /tenants of {new['id']} (finance)" in text
    assert denied.headers["x-request-id"] in text
    assert wrong[4:20] in text
    assert wrong[21:64] not in text
    assert new["secret"][21:64] not in text
    assert admin_house.refusals[-2:] == ["forbidden", "invalid_admin_token"]
