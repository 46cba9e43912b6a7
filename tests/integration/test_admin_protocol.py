"""What holds for every noun of the admin API: the token, ETags, pages, problems."""

from collections.abc import Iterator

import httpx
import pytest

from gateway.admin.api import operations
from gateway.admin.operation import Operation
from gateway.stores.sql import configuration
from tests.admin_server import TOKEN, AdminServer, Made, admin_server

NO_SUCH = "x_00000000000000000000000000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminServer]:
    with admin_server(f"sqlite:///{tmp_path_factory.mktemp('admin') / 'a.db'}") as server:
        yield server


@pytest.fixture
def client(server: AdminServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def stranger(server: AdminServer) -> Iterator[httpx.Client]:
    with server.stranger() as client:
        yield client


@pytest.fixture
def made(client: httpx.Client) -> Made:
    return Made(client)


@pytest.mark.parametrize("operation", operations(), ids=lambda each: f"{each.method} {each.path}")
def test_every_operation_refuses_whoever_has_not_the_admin_token(
    stranger: httpx.Client, operation: Operation
) -> None:
    path = operation.path.replace("{id}", NO_SUCH)

    answers = [
        stranger.request(operation.method, path),
        stranger.request(operation.method, path, headers={"authorization": "Bearer wrong"}),
    ]

    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer x{TOKEN}", TOKEN],
)
def test_what_only_looks_like_the_token_is_refused(
    stranger: httpx.Client, authorization: str
) -> None:
    answer = stranger.get("/tenants", headers={"authorization": authorization})

    assert answer.status_code == 401


def test_a_token_that_is_there_twice_is_refused(stranger: httpx.Client) -> None:
    right, wrong = (("authorization", f"Bearer {token}") for token in (TOKEN, "wrong"))

    answers = [
        stranger.get("/tenants", headers=list(twice))
        for twice in ((right, wrong), (wrong, right), (right, right))
    ]

    assert [answer.status_code for answer in answers] == [401, 401, 401]


def test_an_application_key_never_opens_the_admin_api(server: AdminServer, made: Made) -> None:
    team = made.team(made.tenant()["id"])
    secret = made.key(team["id"])["secret"]

    with server.client(secret) as client:
        answer = client.get("/tenants")
    with server.client() as client:
        also = client.get("/tenants", headers={"authorization": "", "x-api-key": secret})

    assert (answer.status_code, also.status_code) == (401, 401)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", f"/tenants/{NO_SUCH}", 404, "not_found"),
        ("GET", "/tenants/%00", 404, "not_found"),
        ("GET", "/tenants/..%2f..%2fetc", 404, "not_found"),
        ("PATCH", "/tenants", 405, "method_not_allowed"),
        ("DELETE", f"/tenants/{NO_SUCH}", 404, "not_found"),
        ("GET", "/tenants?colour=red", 400, "unknown_parameter"),
        ("GET", "/tenants?limit=0", 400, "invalid_request"),
        ("GET", "/tenants?limit=many", 400, "invalid_request"),
        ("GET", "/tenants?limit=1&limit=2", 400, "invalid_request"),
        ("GET", "/tenants?cursor=%27%3B--", 400, "invalid_request"),
        ("GET", "/tenants?name=%00", 400, "invalid_request"),
        ("GET", f"/tenants/{NO_SUCH}?x=1", 400, "unknown_parameter"),
    ],
)
def test_whatever_is_refused_is_a_problem_document(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"]
    assert problem["detail"] != problem["title"]


def test_a_list_is_told_from_either_end(client: httpx.Client) -> None:
    made = [
        client.post("/tenants", json={"name": f"turned-{n}", "currency": "EUR", "timezone": "UTC"})
        for n in range(5)
    ]
    ids = {one.json()["id"] for one in made}
    told: dict[str, list[str]] = {}
    for order in ("asc", "desc"):
        found, cursor = [], None
        while cursor is not None or not found:
            params = {"order": order, "limit": 2} | ({"cursor": cursor} if cursor else {})
            page = client.get("/tenants", params=params).json()
            found += [item["id"] for item in page["items"]]
            cursor = page["next"]
        told[order] = found

    assert told["desc"] == told["asc"][::-1]
    assert ids <= set(told["asc"])
    assert client.get("/tenants?order=random").status_code == 400


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, ""),
        (b"{", 400, ""),
        (b"\xff\xfe", 400, ""),
        (b"[" * 100_000, 400, ""),
        (b'{"a":' * 40 + b"1" + b"}" * 40, 400, ".".join("a" * 32)),
        (b'{"name":"a","currency":"EUR","timezone":"UTC","name":"b"}', 400, "name"),
        (b'{"name":"a","currency":"EUR","timezone":"UTC","n\\u0061me":"a"}', 400, "name"),
        (b'{"name":' + b"1" * 5_000 + b"}", 400, ""),
        (b'{"x":[{"y":{"a":1,"a":1}}]}', 400, "a"),
        (b"[]", 400, ""),
        (b"null", 400, ""),
        (b'{"name":"a","currency":"EUR"}', 400, "timezone"),
        (b'{"name":1,"currency":"EUR","timezone":"UTC"}', 400, "name"),
        (b'{"name":"a","currency":"EUR","timezone":"UTC","colour":"red"}', 400, "colour"),
        (b'{"name":"","currency":"EUR","timezone":"UTC"}', 400, "name"),
        (b'{"name":"a\\u0000","currency":"EUR","timezone":"UTC"}', 400, "name"),
        (b'{"name":"a\\n","currency":"EUR","timezone":"UTC"}', 400, "name"),
        (b'{"name":"a","currency":"EUR","timezone":"UTC","tag_names":["A"]}', 400, "tag_names[0]"),
        (b'{"name":"a","currency":"EUX","timezone":"UTC"}', 422, "currency"),
        (b'{"name":"a","currency":"EUR","timezone":"Mars/Olympus"}', 422, "timezone"),
        (b'{"name":"a","currency":"EUR","timezone":"../etc/passwd"}', 422, "timezone"),
    ],
)
def test_a_body_is_refused_by_the_name_of_the_field_at_fault(
    client: httpx.Client, body: bytes, status: int, field: str
) -> None:
    answer = client.post("/tenants", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["field"] == field


def test_a_body_that_is_not_declared_as_json_is_refused(client: httpx.Client) -> None:
    answer = client.post("/tenants", data={"name": "a"})

    assert answer.status_code == 415


def test_a_body_that_is_too_large_is_refused(client: httpx.Client) -> None:
    answer = client.post("/tenants", json={"name": "a" * 2_000_000})

    assert answer.status_code == 413
    assert answer.json()["status"] == 413


def test_an_object_carries_its_version_and_a_stale_one_cannot_overwrite_it(
    client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant()
    path, body = f"/tenants/{tenant['id']}", {"currency": "EUR", "timezone": "UTC"}
    first = client.get(path).headers["etag"]

    changed = client.put(path, json={"name": "changed"} | body, headers={"if-match": first})
    stale = client.put(path, json={"name": "c"} | body, headers={"if-match": first})
    gone = client.delete(path, headers={"if-match": first})

    assert (changed.status_code, stale.status_code, gone.status_code) == (200, 412, 412)
    assert stale.headers["content-type"] == "application/problem+json"
    assert changed.headers["etag"] != first
    assert client.get(path).json()["name"] == "changed"


@pytest.mark.parametrize(
    ("if_match", "status"),
    [('"1"', 200), ("*", 200), ('"7", "1"', 200), ('W/"1"', 412), ('"7"', 412), ("1", 412)],
)
def test_if_match_is_compared_strongly(
    client: httpx.Client, made: Made, if_match: str, status: int
) -> None:
    tenant = made.tenant()
    body = {"name": tenant["name"], "currency": "EUR", "timezone": "UTC"}

    answer = client.put(f"/tenants/{tenant['id']}", json=body, headers={"if-match": if_match})

    assert answer.status_code == status


def test_putting_the_same_twice_is_the_same_as_once(client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    path = f"/tenants/{tenant['id']}"
    body = {"name": "renamed", "currency": "EUR", "timezone": "UTC"}

    once, twice = client.put(path, json=body), client.put(path, json=body)

    assert once.json() == twice.json()
    assert once.headers["etag"] == twice.headers["etag"] == '"2"'


def test_what_get_answered_can_be_put_back(client: httpx.Client, made: Made) -> None:
    team = made.team(made.tenant()["id"])
    key = made.key(team["id"])
    backend = made.backend()
    scope = {"team": team["id"]}
    rest = [
        ("keys", key),
        ("teams", team),
        ("backends", backend),
        ("models", made.model(backend["id"])),
        ("budgets", made.make("budgets", scope=scope, amount="1", period="day")),
        ("limits", made.make("limits", scope=scope, requests_per_minute=1)),
        ("policies", made.make("policies", scope=scope, name="p", prefer="fastest")),
    ]

    for noun, each in rest:
        path = f"/{noun}/{each['id']}"
        found = client.get(path)
        answer = client.put(path, json=found.json(), headers={"if-match": found.headers["etag"]})

        assert answer.status_code == 200, answer.text
        assert answer.json() == found.json()
        assert answer.headers["etag"] == found.headers["etag"]


def test_another_id_in_the_body_is_refused(client: httpx.Client, made: Made) -> None:
    tenant, other = made.tenant(), made.tenant(name="other")

    answer = client.put(f"/tenants/{tenant['id']}", json=other)

    assert answer.status_code == 422


def test_pages_show_everything_once_and_filters_hold(client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    names = [f"team {number}" for number in range(5)]
    for name in names:
        made.team(tenant["id"], name=name)

    seen, cursor = [], None
    while True:
        params = {"limit": 2, "tenant_id": tenant["id"]} | ({"cursor": cursor} if cursor else {})
        page = client.get("/teams", params=params).json()
        seen += [each["name"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break

    assert seen == names
    assert [each["name"] for each in _named(client, "team 3")] == ["team 3"]
    assert client.get("/teams", params={"tenant_id": NO_SUCH}).json() == {"items": [], "next": None}


def _named(client: httpx.Client, name: str) -> list[dict[str, str]]:
    return list(client.get("/teams", params={"name": name}).json()["items"])


def test_every_change_is_announced_with_its_revision(
    server: AdminServer, client: httpx.Client, made: Made
) -> None:
    before = configuration.revision(server.engine)
    server.published.clear()
    tenant = made.tenant()
    client.get(f"/tenants/{tenant['id']}")
    client.post("/tenants", json={"name": tenant["name"], "currency": "EUR", "timezone": "UTC"})
    client.delete(f"/tenants/{tenant['id']}")

    assert server.published == [before + 1, before + 2]
