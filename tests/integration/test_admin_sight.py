"""Out of sight is as if it did not exist: in lists, paths, bodies, usage and status."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from gateway.admin import roles
from gateway.admin.api import operations
from gateway.admin.operation import Operation, Page
from gateway.admin.places import REFERENCES
from gateway.admin.roles import Relation, Role
from gateway.stores.sql import usage
from tests.admin_server import admin_server
from tests.admin_world import Who, World, ask, furnished, scope_of
from tests.ledger_events import an_event

MISSING = "0" * 26
LISTS = [
    each
    for each in operations()
    if each.method == "GET" and each.query is not None and issubclass(each.query, Page)
]
EVER = {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    url = f"sqlite:///{tmp_path_factory.mktemp('sight') / 'a.db'}"
    with admin_server(url) as server, closing(furnished(server)) as world:
        events = [
            an_event(
                request=f"req_{name}", tenant_id=path[0], team_path=path[1:-1], key_id=path[-1]
            )
            for name, path in world.nodes.items()
            if "bot" in name
        ]
        usage.record(server.engine, [(event, True) for event in events])
        yield world


def named(world: World, label: str) -> Who:
    return next(who for who in world.people if who.label == label)


def listed(world: World, who: Who, path: str) -> set[str]:
    found: set[str] = set()
    params: dict[str, Any] = {"limit": 7}
    while True:
        page = ask(world, who, "GET", path, params=params).json()
        found |= {each["id"] for each in page["items"]}
        if page["next"] is None:
            return found
        params["cursor"] = page["next"]


@pytest.mark.parametrize(
    "operation", [each for each in LISTS if "{id}" not in each.path], ids=lambda each: each.path
)
def test_a_list_shows_what_is_in_sight_and_nothing_else(world: World, operation: Operation) -> None:
    for who in world.people:
        if not roles.allowed(who.role, operation.right):
            continue
        placed = list(world.placed(operation.noun, who))

        found = listed(world, who, operation.path)

        mine = {identifier for where, identifier in placed if roles.in_sight(where)}
        others = {identifier for _, identifier in placed} - mine
        assert (who.label, mine - found, others & found) == (who.label, set(), set())


@pytest.mark.parametrize("label", ["tenant_admin", "team_admin", "auditor of acme"])
def test_a_path_out_of_sight_answers_as_one_that_leads_nowhere(world: World, label: str) -> None:
    who = named(world, label)
    for noun, by_path in world.objects.items():
        for path, (identifier, *_) in by_path.items():
            if roles.in_sight(roles.relation(who.path, path)):
                continue
            nowhere = f"{identifier.partition('_')[0]}_{MISSING}"
            answers = [
                ask(world, who, method, f"/{noun}/{each}", json={"nonsense": 1})
                for each in (identifier, nowhere)
                for method in sorted(
                    op.method for op in operations() if op.path == f"/{noun}/{{id}}"
                )
            ]

            shown = {
                (each.status_code, each.text.replace(identifier, "ID").replace(nowhere, "ID"))
                for each in answers
            }
            assert len(shown) == 1, (noun, path, shown)
            assert {status for status, _ in shown} == {404}


def test_what_is_no_id_of_a_decision_leads_nowhere(world: World) -> None:
    who = named(world, "team_admin")

    answer = ask(world, who, "GET", f"/decisions/decision_{'u' * 26}")

    assert answer.status_code == 404


def test_a_body_that_names_what_is_out_of_sight_is_refused_as_if_it_did_not_exist(
    world: World,
) -> None:
    who, tried = named(world, "team_admin"), set()
    foreign = {
        "tenants": world.nodes["globex"][0],
        "teams": world.nodes["beside"][-1],
        "keys": world.nodes["bot of beside"][-1],
        "budgets": world.objects["budgets"][world.nodes["parent"]][0],
    }
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "tenant_id": ("/teams", {"name": "x"}),
        "team_id": ("/keys", {"name": "x"}),
        "parent_id": ("/teams", {"name": "x", "tenant_id": who.path[0]}),
        "key_id": ("/policies/explain", {"model": "chat"}),
        "budget_id": ("/grants", {"amount": "1", "until": "2099-01-01T00:00:00Z", "reason": "x"}),
        "scope.tenant": ("/limits", {"requests_per_minute": 1}),
        "scope.team": ("/limits", {"requests_per_minute": 1}),
        "scope.key": ("/limits", {"requests_per_minute": 1}),
    }
    for field, (path, body) in bodies.items():
        there = foreign[REFERENCES[field]]
        nowhere = f"{there.partition('_')[0]}_{MISSING}"
        answers = []
        for identifier in (there, nowhere):
            outer, _, inner = field.partition(".")
            value = {inner: identifier} if inner else identifier
            answer = ask(world, who, "POST", path, json=body | {outer: value})
            answers.append((answer.status_code, answer.text.replace(identifier, "ID")))
        assert answers[0] == answers[1], field
        assert answers[0][0] == 422
        tried.add(field)
    assert tried == set(REFERENCES) - {"policy_id"}, "no body names a policy yet"


@pytest.mark.parametrize(
    ("label", "keys"),
    [
        ("platform_admin", {"own", "sub", "beside", "lab"}),
        ("auditor", {"own", "sub", "beside", "lab"}),
        ("finance of acme", {"own", "sub", "beside"}),
        ("tenant_admin", {"own", "sub", "beside"}),
        ("team_admin", {"own", "sub"}),
    ],
)
def test_usage_is_of_the_own_subtree(world: World, label: str, keys: set[str]) -> None:
    who = named(world, label)
    wanted = {world.nodes[f"bot of {team}"][-1] for team in keys}
    foreign = {"tenant_id": world.nodes["globex"][0]}

    sums = ask(world, who, "GET", "/usage", params=EVER | {"group_by": "key"}).json()["items"]
    by_tag = ask(world, who, "GET", "/usage", params=EVER | {"group_by": "key,tag:app"}).json()
    single = ask(world, who, "GET", "/usage/requests", params=EVER).json()["items"]
    theirs = ask(world, who, "GET", "/usage", params=EVER | foreign).json()["items"]

    assert {each["key"] for each in sums} == wanted
    assert {each["key"] for each in by_tag["items"]} == wanted
    assert {each["key_id"] for each in single} == wanted
    assert bool(theirs) == ("lab" in keys)


def test_status_tells_a_tenant_that_the_stores_answer_and_no_more(world: World) -> None:
    mine = ask(world, named(world, "tenant_admin"), "GET", "/status").json()
    whole = ask(world, named(world, "auditor"), "GET", "/status").json()

    assert mine["stores"]["database"]["ok"] is True
    assert mine["stores"]["database"]["version"] == ""
    assert mine["backends"] == mine["queues"] == mine["workers"] == []
    assert mine["jurisdictions"] == whole["jurisdictions"] == ["DE"]
    assert len(whole["backends"]) == 1


def test_a_team_cannot_be_moved_out_of_the_subtree_that_binds_it(world: World) -> None:
    who = named(world, "team_admin")
    acme, sub = world.nodes["acme"][0], world.nodes["sub"][-1]

    def move(parent_id: str | None) -> int:
        body = {"tenant_id": acme, "name": "sub", "parent_id": parent_id}
        return ask(world, who, "PUT", f"/teams/{sub}", json=body).status_code

    assert move(None) == 403
    assert move(world.nodes["beside"][-1]) == 422
    assert move(world.nodes["parent"][-1]) == 422
    assert move(world.nodes["own"][-1]) == 200


def test_a_tenant_admin_keeps_the_name_and_currency_that_the_platform_gave(world: World) -> None:
    who = named(world, "tenant_admin")
    path = f"/tenants/{world.nodes['acme'][0]}"
    body = {"name": "acme", "currency": "EUR", "timezone": "Europe/Paris"}

    renamed = ask(world, who, "PUT", path, json=body | {"name": "globex"})
    moved = ask(world, who, "PUT", path, json=body)

    assert (renamed.status_code, renamed.json()["code"]) == (403, "forbidden")
    assert moved.json()["timezone"] == "Europe/Paris"


def test_what_is_made_below_binds_beside_what_stands_above_it(world: World) -> None:
    """Narrow only: a team_admin's budget comes on top of those above, it never replaces one."""
    who = named(world, "team_admin")
    own, key = world.nodes["own"], world.nodes["bot of own"]
    above = world.objects["budgets"][own][0]
    fields = {"amount": "99", "period": "week"}

    raised = ask(world, who, "PUT", f"/budgets/{above}", json={"scope": scope_of(own), **fields})
    granted = ask(
        world, who, "POST", f"/budgets/{above}/grants",
        json={"amount": "1", "until": "2099-01-01T00:00:00Z", "reason": "more"},
    )  # fmt: skip
    beside = ask(world, who, "POST", "/budgets", json={"scope": scope_of(own), **fields})
    below = ask(world, who, "POST", "/budgets", json={"scope": scope_of(key), **fields})

    assert [each.status_code for each in (raised, granted, beside, below)] == [403, 403, 403, 201]


def test_rights_follow_a_team_that_is_moved_at_once(world: World) -> None:
    who, admin = named(world, "team_admin"), named(world, "platform_admin")
    acme, far, own = world.nodes["acme"][0], world.nodes["far"][-1], world.nodes["own"][-1]

    def seen() -> int:
        return ask(world, who, "GET", f"/teams/{far}").status_code

    def move(parent_id: str | None) -> None:
        body = {"tenant_id": acme, "name": "far", "parent_id": parent_id}
        ask(world, admin, "PUT", f"/teams/{far}", json=body).raise_for_status()

    before = seen()
    move(own)
    inside = seen()
    move(None)

    assert (before, inside, seen()) == (404, 200, 404)


def test_the_world_has_every_relation_for_those_who_do_not_see_everything(world: World) -> None:
    for role, missing in ((Role.TEAM_ADMIN, set()), (Role.TENANT_ADMIN, {Relation.SIBLING})):
        who = next(each for each in world.people if each.role is role)
        assert {where for where, _ in world.placed("budgets", who)} | {
            where for where, _ in world.placed("backends", who)
        } == set(Relation) - missing
