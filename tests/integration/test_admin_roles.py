"""Every route, for every role, at everything that can lie at, below, above, beside or outside of
where somebody stands: what the pure table says is what HTTP answers.
"""

from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from gateway.admin import roles
from gateway.admin.api import PREFIX, create_app, operations
from gateway.admin.operation import Operation
from gateway.admin.places import NOUNS
from gateway.admin.roles import Path, Relation, Role, Verdict, relation
from tests.admin_server import AdminServer, admin_server, deps_of
from tests.admin_world import Who, World, ask, fresh, furnished

STALE = {"if-match": '"999999"'}  # stops a change that is allowed, and nothing before that
NONSENSE = {"nonsense": True}
LET_THROUGH = {200, 400, 409, 412, 422}
OF_ONE = [each for each in operations() if "{id}" in each.path]
OF_ALL = [each for each in operations() if "{id}" not in each.path]
MAKES = [each for each in OF_ALL if each.status == 201 and each.path.count("/") == 1]
ANSWERED = {Verdict.FORBIDDEN: 403, Verdict.UNSEEN: 404}


def name(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    url = f"sqlite:///{tmp_path_factory.mktemp('roles') / 'a.db'}"
    with admin_server(url) as server, closing(furnished(server)) as world:
        yield world


def test_every_route_of_the_api_is_an_operation_and_every_operation_names_a_right(
    world: World,
) -> None:
    app = create_app(deps_of(AdminServer("", world.server.engine), frozenset()))
    routed = {
        (method, route.path.removeprefix(PREFIX).replace("{id:str}", "{id}"))
        for route in app.routes
        if route.path.startswith(PREFIX)
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    }

    assert routed == {(each.method, each.path) for each in operations()}
    assert all(isinstance(each.right, roles.Right) for each in operations())
    assert {each.noun for each in OF_ONE} <= set(NOUNS)
    with pytest.raises(TypeError, match="right"):
        Operation("GET", "/x", "x", "x", operations()[0].run)  # type: ignore[call-arg]


@pytest.mark.parametrize("operation", OF_ONE, ids=name)
def test_what_a_role_may_do_to_an_object_is_what_the_table_says(
    world: World, operation: Operation
) -> None:
    tried: set[Relation] = set()
    for who in world.people:
        for where, identifier in world.one_of_each(operation.noun, who).items():
            answer = attempt(world, who, operation, identifier)

            verdict = roles.verdict(who.role, operation.right, where)
            case = (str(who), where.value, answer.status_code, answer.text)
            if verdict is not Verdict.ALLOWED:
                assert answer.status_code == ANSWERED[verdict], case
            elif operation.method == "GET":
                assert answer.status_code == 200, case
            else:
                assert answer.status_code in LET_THROUGH, case
            tried.add(where)
    assert len(tried) >= 2, "at least what is in sight, and what is not"


@pytest.mark.parametrize("operation", OF_ALL, ids=name)
def test_what_a_role_may_ask_for_as_a_whole_is_what_the_table_says(
    world: World, operation: Operation
) -> None:
    for who in world.people:
        answer = attempt(world, who, operation, "")

        case = (str(who), answer.status_code, answer.text)
        if not roles.allowed(who.role, operation.right):
            assert answer.status_code == 403, case
            assert answer.json()["code"] == "forbidden"
        elif operation.method == "GET":
            assert answer.status_code == 200, case
        else:
            assert answer.status_code in LET_THROUGH, case


@pytest.mark.parametrize("operation", MAKES, ids=name)
def test_what_a_role_may_make_and_where_is_what_the_table_says(
    world: World, operation: Operation
) -> None:
    for who in world.people:
        for path in nodes(world, operation.noun):
            body = fresh(world, operation.noun, path)

            answer = ask(world, who, "POST", operation.path, json=body)

            case = (str(who), path, answer.status_code, answer.text)
            assert answer.status_code in expected(world, who, operation, path), case


def test_what_a_team_weighs_is_said_by_somebody_above_it_and_never_by_its_own(
    world: World,
) -> None:
    """A heavier team takes turns from others, so it is not for its own admin to say (L11)."""
    admin = next(who for who in world.people if who.role is Role.PLATFORM_ADMIN)
    said = 0
    for who in world.people:
        for where, team in world.placed("teams", who):
            path, before = f"/teams/{team}", ask(world, admin, "GET", f"/teams/{team}").json()
            body = {name: before[name] for name in ("tenant_id", "name", "parent_id")}
            weight = before["weight"] % 1_000 + 1

            answer = ask(world, who, "PUT", path, json=body | {"weight": weight})

            verdict = roles.verdict(who.role, roles.Right.TEAMS_CHANGE, where)
            after = ask(world, admin, "GET", path).json()["weight"]
            case = (str(who), where.value, answer.status_code, answer.text)
            if verdict is Verdict.ALLOWED:
                assert (answer.status_code, after, where) == (200, weight, Relation.BELOW), case
                said += 1
            else:
                assert (answer.status_code, after) == (ANSWERED[verdict], before["weight"]), case
    assert said >= 3


def attempt(world: World, who: Who, operation: Operation, identifier: str) -> httpx.Response:
    path = operation.path.replace("{id}", identifier)
    body = {"json": NONSENSE} if operation.body is not None else {}
    return ask(world, who, operation.method, path, headers=STALE, **body)


def nodes(world: World, noun: str) -> list[Path]:
    """Where an object of the noun can be attached."""
    platform, tenants = [()], [world.nodes["acme"], world.nodes["globex"]]
    teams = [path for name, path in world.nodes.items() if len(path) > 1 and "bot" not in name]
    match noun:
        case "tenants" | "backends" | "models" | "provider-bills" | "exchange-rates":
            return list(platform)
        case "prices":
            return [*platform, *tenants]
        case "invoices" | "discounts" | "commitments" | "repricings":
            return tenants
        case "keys":
            return teams
        case "teams":
            return [*tenants, *teams]
        case "admin-tokens":
            return [*platform, *tenants, *teams]
        case _:
            return list(world.nodes.values())


def expected(world: World, who: Who, operation: Operation, path: Path) -> set[int]:
    allowed = roles.allowed(who.role, operation.right)
    if not allowed:
        return {403}
    named = relation(who.path, path)
    inside = operation.noun in {"teams", "keys"}
    lies = relation(who.path, (*path, "new")) if inside else named
    if lies in allowed:
        return {201, 409}
    known = roles.in_sight(named) or path in {(), who.path[:1]} or who.role is Role.PLATFORM_ADMIN
    return {403} if known else {422}
