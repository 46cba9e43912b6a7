"""What is particular to each noun of the admin API."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway import keyring
from gateway.stores.sql import configuration
from gateway.stores.sql.seal import Sealer
from tests import servers
from tests.admin_server import PEPPERS, SEALING_KEY, AdminServer, Made, admin_server

MISSING = "00000000000000000000000000"


@pytest.fixture(scope="module")
def sqlite_house_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('admin') / 'a.db'}"


@pytest.fixture(scope="module")
def postgres_house_url(postgres_server_url: str) -> Iterator[str]:
    with servers.fresh_database(postgres_server_url) as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest) -> Iterator[AdminServer]:
    with admin_server(request.getfixturevalue(f"{request.param}_house_url")) as server:
        yield server


@pytest.fixture
def client(server: AdminServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def made(client: httpx.Client) -> Made:
    return Made(client)


def refused(answer: httpx.Response, status: int, field: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    if field is not None:
        assert field in [each["field"] for each in answer.json()["errors"]], answer.text


def test_a_tenants_currency_is_fixed_once_money_is_kept_in_it(
    client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant()
    path = f"/tenants/{tenant['id']}"
    body = {"name": tenant["name"], "currency": "USD", "timezone": "UTC"}

    free = client.put(path, json=body)
    made.make("budgets", scope={"tenant": tenant["id"]}, amount="1", period="day")
    bound = client.put(path, json=body | {"currency": "EUR"})

    assert free.status_code == 200
    refused(bound, 409)


def test_a_name_is_given_once(client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    made.team(tenant["id"])

    refused(client.post("/teams", json={"tenant_id": tenant["id"], "name": "core"}), 409)
    same = {"name": tenant["name"], "currency": "EUR", "timezone": "UTC"}
    refused(client.post("/tenants", json=same), 409)


def test_teams_nest_within_their_tenant_and_never_in_a_circle(
    client: httpx.Client, made: Made
) -> None:
    tenant, other = made.tenant(), made.tenant(name="other")
    outer = made.team(tenant["id"], name="outer")
    inner = made.team(tenant["id"], name="inner", parent_id=outer["id"])
    innermost = made.team(tenant["id"], name="innermost", parent_id=inner["id"])
    foreign = made.team(other["id"], name="foreign")

    def put(parent_id: str, tenant_id: str = tenant["id"]) -> httpx.Response:
        body = {"tenant_id": tenant_id, "name": "outer", "parent_id": parent_id}
        return client.put(f"/teams/{outer['id']}", json=body)

    for parent in (outer, inner, innermost, foreign):
        refused(put(parent["id"]), 422, "parent_id")
    refused(put(f"team_{MISSING}"), 422, "parent_id")
    refused(put(foreign["id"], other["id"]), 422, "tenant_id")


def test_teams_nest_eight_deep_at_most(client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    parent = None
    for level in range(8):
        parent = made.team(tenant["id"], name=f"level {level}", parent_id=parent)["id"]

    body = {"tenant_id": tenant["id"], "name": "one more", "parent_id": parent}
    refused(client.post("/teams", json=body), 422, "parent_id")


def test_what_others_refer_to_is_not_deleted(client: httpx.Client, made: Made) -> None:
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
        answer = client.delete(f"/{noun}/{each['id']}")
        refused(answer, 409)
        assert answer.json()["code"] == "in_use"
    refused(client.delete(f"/backends/{backend['id']}"), 409)
    for noun, each in [*order, ("models", model), ("backends", backend)]:
        assert client.delete(f"/{noun}/{each['id']}").status_code == 204


def test_a_keys_secret_is_shown_once_and_only_its_hash_is_kept(
    server: AdminServer, client: httpx.Client, made: Made
) -> None:
    key = made.key(made.team(made.tenant()["id"])["id"])
    presented = keyring.parse(key["secret"].encode())
    assert presented is not None

    secrets = configuration.load(server.engine).secrets
    (kept,) = [each for each in secrets if each.key_id == key["id"]]

    assert kept.public_id == presented.public_id == key["secrets"][0]["id"]
    assert kept.pepper_version == 2
    assert keyring.matches(PEPPERS.by_version[2], presented.secret, kept.digest)
    for answer in (client.get(f"/keys/{key['id']}"), client.get("/keys")):
        assert presented.secret.decode() not in answer.text


def test_a_rotated_key_has_two_secrets_for_a_while_and_a_revoked_one_none(
    server: AdminServer, client: httpx.Client, made: Made
) -> None:
    key = made.key(made.team(made.tenant()["id"])["id"])
    path = f"/keys/{key['id']}"

    rotated = client.post(f"{path}/rotate", json={"overlap_seconds": 60}).json()
    old, new = rotated["secrets"]
    assert old["expires_at"] is not None
    assert new["expires_at"] is None
    assert rotated["secret"] != key["secret"]

    at_once = client.post(f"{path}/rotate", json={"overlap_seconds": 0}).json()
    assert len(at_once["secrets"]) == 1

    revoked = client.post(f"{path}/revoke")
    assert revoked.json()["revoked_at"] is not None
    assert client.post(f"{path}/revoke").json() == revoked.json()
    alive = [each.key_id for each in configuration.load(server.engine).secrets]
    assert key["id"] not in alive
    refused(client.post(f"{path}/rotate"), 409)


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
    client: httpx.Client, made: Made, fields: dict[str, Any], status: int, field: str
) -> None:
    team = made.team(made.tenant()["id"])

    refused(
        client.post("/keys", json={"team_id": team["id"], "name": "app"} | fields), status, field
    )


def test_a_credential_goes_in_sealed_and_never_comes_out(
    server: AdminServer, client: httpx.Client, made: Made
) -> None:
    backend = made.backend(credential="sk-hush")
    path, plain = f"/backends/{backend['id']}", {k: v for k, v in backend.items() if k != "id"}

    found = configuration.load(server.engine).backends
    kept = next(each.credential_sealed for each in found if each.id == backend["id"])
    assert kept is not None
    assert b"sk-hush" not in kept
    assert Sealer(SEALING_KEY).unseal(backend["id"], kept) == "sk-hush"
    assert "sk-hush" not in client.get(path).text + client.get("/backends").text
    assert client.put(path, json=plain).json()["has_credential"] is True
    assert client.put(path, json=plain | {"credential": None}).json()["has_credential"] is False


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/v1",
        "example.com/v1",
        "//example.com/v1",
        "http:///v1",
        "https://user:pass@example.com/v1",
        "https://user@example.com/v1",
        "https://example.com/v1?key=1",
        "https://example.com/v1#x",
        "https://example.com:0/v1",
        "https://example.com:99999/v1",
        "https://example.com:port/v1",
        "https://exa mple.com/v1",
        "https://example.com\\@evil.test/v1",
        "http://169.254.169.254/v1",
        "http://[fe80::1]/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://2852039166/v1",
        "http://0xa9fea9fe/v1",
        "http://0251.0376.0251.0376/v1",
        "http://0.0.0.0/v1",
        "http://[::]/v1",
        "http://a..b/v1",
        "javascript:alert(1)",
        "file:///etc/passwd",
    ],
)
def test_a_backend_lives_at_a_plain_http_address(client: httpx.Client, url: str) -> None:
    body = {"name": "b", "base_url": url, "region": "eu"}

    refused(client.post("/backends", json=body), 422, "base_url")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "https://api.example.com/v1",
        "http://[::1]:9/v1",
        "http://gpu/v1/",
    ],
)
def test_a_backend_may_live_on_premises(made: Made, url: str) -> None:
    assert made.backend(base_url=url)["base_url"] == url.rstrip("/")


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"jurisdictions": ["UK"]}, 422, "jurisdictions"),
        ({"jurisdictions": ["DE", "DE"]}, 422, "jurisdictions"),
        ({"placement": "moon"}, 400, "placement"),
        ({"dialect": "morse"}, 400, "dialect"),
        ({"credential": "has space"}, 400, "credential"),
        ({"credential": "line\r\nx-evil: 1"}, 400, "credential"),
        ({"max_concurrency": 0}, 400, "max_concurrency"),
        ({"idle_timeout_ms": 0}, 400, "idle_timeout_ms"),
    ],
)
def test_a_backend_that_cannot_be_meant_is_refused(
    client: httpx.Client, fields: dict[str, Any], status: int, field: str
) -> None:
    body = {"name": "refused", "base_url": "http://gpu/v1", "region": "eu"} | fields

    refused(client.post("/backends", json=body), status, field)


def test_a_model_points_at_backends_that_exist_each_once(client: httpx.Client, made: Made) -> None:
    backend = made.backend()
    target = {"backend_id": backend["id"], "upstream_model": "m"}
    missing = {"backend_id": f"backend_{MISSING}", "upstream_model": "m"}

    def post(**fields: Any) -> httpx.Response:
        body = {"name": made.name(), "targets": [target]} | fields
        return client.post("/models", json=body)

    refused(post(targets=[]), 400, "targets")
    refused(post(targets=[target, target]), 422, "targets")
    refused(post(targets=[target, missing]), 422, "targets[1].backend_id")
    refused(post(targets=[target | {"weight": 0}]), 400, "targets[0].weight")
    refused(post(capabilities=["flying"]), 400, "capabilities[0]")
    refused(post(context_window=10, max_output_tokens=11), 422, "max_output_tokens")
    refused(post(markup="1e3"), 400, "markup")
    assert post().status_code == 201


def test_a_budget_shows_what_is_spent_held_and_left_exactly(
    server: AdminServer, client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant()
    budget = made.make(
        "budgets", scope={"tenant": tenant["id"]}, amount="123456.789012345", period="total"
    )
    key = f"mh:{{s00}}:acct:{budget['id']}:total"
    server.accounts[key] = (123_456_000_000_001, 700_000_000)

    found = client.get(f"/budgets/{budget['id']}").json()

    assert (budget["spent"], budget["held"]) == ("0", "0")
    assert (found["spent"], found["held"]) == ("123456.000000001", "0.7")
    assert found["remaining"] == "0.089012344"
    assert found["currency"] == "EUR"


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"amount": "9007199.254740992"}, 422, "amount"),
        ({"amount": "0.0000000001"}, 422, "amount"),
        ({"amount": "-1"}, 400, "amount"),
        ({"amount": "1e3"}, 400, "amount"),
        ({"amount": 1}, 400, "amount"),
        ({"amount": "NaN"}, 400, "amount"),
        ({"currency": "USD"}, 422, "currency"),
        ({"period": "decade"}, 400, "period"),
        ({"mode": "firm"}, 400, "mode"),
        ({"thresholds": [80, 50]}, 422, "thresholds"),
        ({"scope": {}}, 422, "scope"),
        ({"scope": {"tenant": f"tenant_{MISSING}"}}, 422, "scope.tenant"),
        ({"scope": {"planet": "x"}}, 400, "scope.planet"),
    ],
)
def test_a_budget_that_could_not_be_kept_is_refused(
    client: httpx.Client, made: Made, fields: dict[str, Any], status: int, field: str
) -> None:
    tenant = made.tenant()
    body = {"scope": {"tenant": tenant["id"]}, "amount": "10", "period": "month"} | fields

    refused(client.post("/budgets", json=body), status, field)


def test_the_largest_budget_that_can_be_counted_exactly_is_accepted(made: Made) -> None:
    tenant = made.tenant()

    budget = made.make(
        "budgets", scope={"tenant": tenant["id"]}, amount="9007199.254740991", period="day"
    )

    assert budget["remaining"] == "9007199.254740991"


def test_a_scope_has_one_budget_a_period_and_one_limit(client: httpx.Client, made: Made) -> None:
    scope = {"tenant": made.tenant()["id"]}
    budget = {"scope": scope, "amount": "1", "period": "day"}
    limit = {"scope": scope, "concurrent_requests": 1}
    made.make("budgets", **budget)
    made.make("limits", **limit)

    refused(client.post("/budgets", json=budget), 409)
    refused(client.post("/limits", json=limit), 409)
    refused(client.post("/limits", json={"scope": scope}), 422)
    assert client.post("/budgets", json=budget | {"period": "week"}).status_code == 201


def test_what_is_attached_to_a_scope_never_moves(client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    team = made.team(tenant["id"])
    scope, other = {"tenant": tenant["id"]}, {"team": team["id"]}
    budget = made.make("budgets", scope=scope, amount="1", period="day")
    policy = made.make("policies", scope=scope, name="p", prefer="fastest")

    moved = {"scope": other, "amount": "1", "period": "day"}
    refused(client.put(f"/budgets/{budget['id']}", json=moved), 422, "scope")
    moved = {"scope": other, "name": "p", "prefer": "fastest"}
    refused(client.put(f"/policies/{policy['id']}", json=moved), 422, "scope")


def test_a_policy_is_drafted_activated_superseded_and_rolled_back(
    server: AdminServer, client: httpx.Client, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    policy = made.make("policies", scope=scope, name="eu", require={"residency": ["EU"]})
    path = f"/policies/{policy['id']}"
    assert (policy["version"], policy["state"], policy["active_version"]) == (1, "draft", None)
    assert _active(server, policy) == []

    assert client.post(f"{path}/activate").json()["active_version"] == 1
    second = {"scope": scope, "name": "eu", "require": {"residency": ["DE"]}}
    drafted = client.put(path, json=second).json()
    assert (drafted["version"], drafted["state"], drafted["active_version"]) == (2, "draft", 1)

    assert client.post(f"{path}/activate", json={"version": 2}).json()["active_version"] == 2
    back = client.post(f"{path}/activate", json={"version": 1}).json()
    assert back["active_version"] == 1
    assert back["require"] == {"residency": ["EU"]}
    assert [each["state"] for each in back["versions"]] == ["retired", "active"]
    assert _active(server, policy) == [1]

    assert client.get(path, params={"version": 2}).json()["require"] == {"residency": ["DE"]}
    assert client.post(f"{path}/retire").json()["active_version"] is None
    refused(client.post(f"{path}/activate", json={"version": 9}), 422, "version")


def _active(server: AdminServer, policy: dict[str, Any]) -> list[int]:
    found = configuration.load(server.engine).policies
    return [each.policy_version for each in found if each.id == policy["id"]]


def test_a_policy_in_force_has_no_shadow_of_itself(client: httpx.Client, made: Made) -> None:
    scope = {"tenant": made.tenant()["id"]}
    policy = made.make("policies", scope=scope, name="p", prefer="fastest")
    path = f"/policies/{policy['id']}"

    assert client.post(f"{path}/shadow").json()["shadow_version"] == 1
    client.post(f"{path}/activate")
    refused(client.post(f"{path}/shadow"), 409)


def test_a_policy_is_refused_with_every_problem_and_its_remedy(
    client: httpx.Client, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    body = {
        "scope": scope,
        "name": "p",
        "require": {"residency": ["UK"], "colour": "red"},
        "budget": {"hold": "sliced"},
    }

    answer = client.post("/policies", json=body)

    refused(answer, 422, "require.residency")
    refused(answer, 422, "require.colour")
    refused(answer, 422, "budget.hold")
    assert all(each["remedy"] for each in answer.json()["errors"])


def test_an_approved_price_is_immutable_and_a_draft_is_not(
    server: AdminServer, client: httpx.Client, made: Made
) -> None:
    body = {
        "book": "charge",
        "model": "dated",
        "meter": "input",
        "amount_per_million": "0.10",
        "currency": "EUR",
        "effective_from": "2026-01-01T00:00:00Z",
    }
    draft = made.make("prices", **body, state="draft")
    path = f"/prices/{draft['id']}"
    assert _in_force(server, draft) == []

    corrected = body | {"amount_per_million": "0.20", "state": "draft"}
    assert client.put(path, json=corrected).status_code == 200
    approved = client.post(f"{path}/approve")
    assert approved.json()["state"] == "approved"
    assert client.post(f"{path}/approve").json() == approved.json()

    refused(client.put(path, json=corrected), 409)
    assert client.put(path, json=approved.json()).status_code == 200
    refused(client.post("/prices", json=body), 409)
    assert _in_force(server, draft) == ["0.20"]


def _in_force(server: AdminServer, price: dict[str, Any]) -> list[str]:
    found = configuration.load(server.engine).prices
    return [each.amount_per_million for each in found if each.id == price["id"]]


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"model": None}, 422, "model"),
        ({"upstream_model": "x"}, 422, "upstream_model"),
        ({"book": "cost", "model": None}, 422, "backend_id"),
        ({"meter": "smiles"}, 400, "meter"),
        ({"amount_per_million": "0.0000001"}, 400, "amount_per_million"),
        ({"amount_per_million": "-1"}, 400, "amount_per_million"),
        ({"amount_per_million": "1e2"}, 400, "amount_per_million"),
        ({"amount_per_million": 0.1}, 400, "amount_per_million"),
        ({"currency": "XXX"}, 422, "currency"),
        ({"effective_from": "2026-01-01"}, 422, "effective_from"),
        ({"tenant_id": f"tenant_{MISSING}"}, 422, "tenant_id"),
    ],
)
def test_a_price_that_cannot_be_meant_is_refused(
    client: httpx.Client, fields: dict[str, Any], status: int, field: str
) -> None:
    body = {
        "book": "charge",
        "model": "chat",
        "meter": "input",
        "amount_per_million": "0.10",
        "currency": "EUR",
    }

    refused(client.post("/prices", json=body | fields), status, field)


def test_a_tenants_own_price_is_in_the_tenants_currency(client: httpx.Client, made: Made) -> None:
    body = {
        "book": "charge",
        "model": "chat",
        "tenant_id": made.tenant()["id"],
        "meter": "input",
        "amount_per_million": "0.10",
        "currency": "USD",
    }

    refused(client.post("/prices", json=body), 422, "currency")
    assert client.post("/prices", json=body | {"currency": "EUR"}).status_code == 201


def test_explain_judges_every_candidate_and_says_why(client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    team = made.team(tenant["id"])
    key = made.key(team["id"])
    eu, us = made.backend(jurisdictions=["DE"]), made.backend(jurisdictions=["US"])
    targets = [{"backend_id": each["id"], "upstream_model": "m"} for each in (eu, us)]
    model = made.make("models", name=made.name(), targets=targets)
    for meter in ("input", "output"):
        made.make(
            "prices",
            book="charge",
            model=model["name"],
            meter=meter,
            amount_per_million="1",
            currency="EUR",
        )
    policy = made.make(
        "policies", scope={"team": team["id"]}, name="eu", require={"residency": ["EU"]}
    )
    client.post(f"/policies/{policy['id']}/activate")

    def explain(**asked: Any) -> dict[str, Any]:
        body = {"key_id": key["id"], "model": model["name"], "input_tokens": 10} | asked
        return dict(client.post("/policies/explain", json=body).json())

    served = explain()
    eligible = {each["backend_id"]: each["eligible"] for each in served["candidates"]}
    assert eligible == {eu["id"]: True, us["id"]: False}
    assert [each["backend_id"] for each in served["attempts"]] == [eu["id"]]
    assert any("residency" in reason for reason in served["candidates"][1]["reasons"])
    assert explain(model="nothing")["refusal"]["code"] == "model_not_found"
    client.post(f"/keys/{key['id']}/revoke")
    assert explain()["code"] == "invalid_value"
