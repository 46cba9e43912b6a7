"""Tenants and teams with an object of every kind at every place, and a token of every role: what
the rights of roles are tried on.

    acme                    globex
      parent                  lab
        own                     bot
          sub
            bot
          bot
        beside
          bot
      far
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway import clock, ids
from gateway.admin.principal import Principal
from gateway.admin.roles import Path, Relation, Role, relation
from gateway.stores.sql import alerts, breakers, decisions
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import KeyBlock
from policies.facts import DECODER, Record, Recorder
from tests.admin_server import AdminServer, Made
from tests.policy_builders import an_ask
from tests.unit.policies.test_facts import a_standing

AMOUNT = {"amount": "10", "period": "month"}
UNTIL = {"amount": "1", "until": "2099-01-01T00:00:00Z", "reason": "a launch"}
PRICE = {
    "book": "charge",
    "model": "chat",
    "meter": "input",
    "amount_per_million": "1",
    "currency": "EUR",
    "state": "draft",
}
RATE = {"base": "EUR", "quote": "USD", "rate": "1.1", "day": "2026-10-31", "source": "ECB"}
COMMITMENT = {"amount": "9", "term": "year", "first_day": "2999-01-01", "state": "draft"}
LOOP = {"amount_per_minute": "5"}
CHANNEL = {"name": "hook", "url": "http://127.0.0.1:9/hook", "secret": "s" * 16}
BILL = {
    "period": "2026-10",
    "currency": "EUR",
    "lines": [
        {"date": "2026-10-01", "model": "m", "meter": "input", "quantity": 1, "amount": "0.01"}
    ],
}
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Who:
    """Somebody with a token, and the node he stands at."""

    label: str
    role: Role
    path: Path
    secret: str
    principal: Principal

    def __str__(self) -> str:
        return self.label


@dataclass
class World:
    """`nodes` by their names: paths of ids. `objects[noun]` by the path of what they belong to."""

    server: AdminServer
    nodes: dict[str, Path] = field(default_factory=dict)
    objects: dict[str, dict[Path, list[str]]] = field(default_factory=dict)
    people: list[Who] = field(default_factory=list)
    _clients: dict[str, httpx.Client] = field(default_factory=dict)

    def client(self, who: Who) -> httpx.Client:
        """One for each of them, closed with the world."""
        if who.secret not in self._clients:
            self._clients[who.secret] = self.server.client(who.secret)
        return self._clients[who.secret]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def add(self, noun: str, path: Path, made: Mapping[str, Any]) -> None:
        self.objects.setdefault(noun, {}).setdefault(path, []).append(str(made["id"]))

    def placed(self, noun: str, who: Who) -> Iterator[tuple[Relation, str]]:
        """Each object of the noun, and where it lies for somebody."""
        for path, found in self.objects[noun].items():
            for identifier in found:
                yield relation(who.path, path), identifier

    def one_of_each(self, noun: str, who: Who) -> dict[Relation, str]:
        """An object of the noun in every relation that somebody can have to one."""
        return dict(self.placed(noun, who))


def furnished(server: AdminServer) -> World:
    world = World(server)
    with server.client() as client:
        made = Made(client)
        _organise(world, made)
        for name, path in tuple(world.nodes.items()):
            _attach(world, made, name, path)
        backend = made.backend()
        world.add("backends", (), backend)
        world.add("models", (), made.model(backend["id"]))
        world.add("prices", (), made.make("prices", **PRICE))
        bill = BILL | {"name": "b", "backend_ids": [backend["id"]]}
        world.add("provider-bills", (), made.make("provider-bills", **bill))
        world.add("exchange-rates", (), made.make("exchange-rates", **RATE))
        world.people = list(_people(world, made))
        _decide(world)
        last = client.get("/audit", params={"limit": 200}).json()["items"]
        for row in last:
            path = _path_of(world, row["tenant_id"], row["team_id"])
            world.add("audit", path, row)
    return world


def _decide(world: World) -> None:
    """A decision on a request of each team."""
    standing = Recorder(a_standing())
    decided = DECODER.decode(standing.facts(an_ask(), {}, (), (), 0, clock.now_us()))
    for name, path in world.nodes.items():
        if len(path) > 1 and "bot" not in name:
            request_id = ids.new("req")
            record = Record(request_id, path[0], path[1:], "key_1", {}, decided)
            known = {standing.digest: standing.packed}
            decisions.add_alone(world.server.engine, "s00", [record], known, clock.now_us())
            world.add("decisions", path, {"id": ids.decision_of(request_id)})


def _organise(world: World, made: Made) -> None:
    acme, globex = made.tenant(name="acme"), made.tenant(name="globex")
    world.nodes = {"acme": (acme["id"],), "globex": (globex["id"],)}
    for name, above in (
        ("parent", "acme"),
        ("own", "parent"),
        ("sub", "own"),
        ("beside", "parent"),
        ("far", "acme"),
        ("lab", "globex"),
    ):
        tenant_id, *teams = world.nodes[above]
        parent_id = teams[-1] if teams else None
        team = made.team(tenant_id, name=name, parent_id=parent_id)
        world.nodes[name] = (*world.nodes[above], team["id"])
        world.add("teams", world.nodes[name], team)
    for tenant in (acme, globex):
        world.add("tenants", (tenant["id"],), tenant)
    for team in ("own", "sub", "beside", "lab"):
        key = made.key(world.nodes[team][-1], name=f"bot of {team}")
        path = (*world.nodes[team], key["id"])
        world.nodes[f"bot of {team}"] = path
        world.add("keys", path, key)
        world.add("key-blocks", path, _blocked(world, path))


def _attach(world: World, made: Made, name: str, path: Path) -> None:
    scope = scope_of(path)
    budget = made.make("budgets", scope=scope, **AMOUNT)
    world.add("budgets", path, budget)
    world.add("grants", path, made.make("grants", budget_id=budget["id"], approver="Ada", **UNTIL))
    world.add("limits", path, made.make("limits", scope=scope, requests_per_minute=5))
    world.add("policies", path, made.make("policies", scope=scope, name="plain"))
    world.add("alert-channels", path, made.make("alert-channels", scope=scope, **CHANNEL))
    world.add("alerts", path, _alerted(world, path, budget))
    world.add("loop-breakers", path, made.make("loop-breakers", scope=scope, **LOOP))
    if "team" in scope:
        token = made.make("admin-tokens", name="one", role="team_admin", scope=scope)
        world.add("admin-tokens", path, token)
    if "tenant" in scope:
        token = made.make("admin-tokens", name="one", role="tenant_admin", scope=scope)
        world.add("admin-tokens", path, token)
        price = made.make("prices", tenant_id=path[0], **PRICE)
        world.add("prices", path, price)
        world.add("discounts", path, made.make("discounts", tenant_id=path[0], percent="5"))
        agreed = made.make("commitments", tenant_id=path[0], **COMMITMENT)
        world.add("commitments", path, agreed)
        world.add("invoices", path, made.make("invoices", tenant_id=path[0], period="2026-11"))
        old = made.make("repricings", tenant_id=path[0], period="2026-01")
        world.add("repricings", path, old)


def _blocked(world: World, path: Path) -> Mapping[str, Any]:
    """The key is blocked, as a breaker does it."""
    now_us = clock.now_us()
    block = KeyBlock(
        id=ids.new("block"), tenant_id=path[0], team_id=path[-2], key_id=path[-1], breaker_id="b",
        alert_id="a", shape="s", reason="r", from_us=now_us, until_us=now_us + 60_000_000,
    )  # fmt: skip
    with transaction(world.server.engine) as connection:
        breakers.BLOCKS.add(connection, block)
    return {"id": block.id}


def _alerted(world: World, path: Path, budget: Mapping[str, Any]) -> Mapping[str, Any]:
    """An alert of the budget, as the jobs make it."""
    (kind, scope_id), tells = next(iter(scope_of(path).items())), ("cap", "amount", "expected")
    alert = alerts.Alert(
        id=ids.new("alert"), tenant_id=path[0], scope_kind=kind, scope_id=scope_id,
        budget_id=budget["id"], window_id="m2026-11", rule="threshold", mark="80", currency="EUR",
        message="m", remedy="r", link="/", fired_at_us=clock.now_us(), **dict.fromkeys(tells, "1"),
    )  # fmt: skip
    with transaction(world.server.engine) as connection:
        alerts.fire(connection, alert, ())
    return {"id": alert.id}


def _people(world: World, made: Made) -> Iterator[Who]:
    for label, role, node in (
        ("platform_admin", Role.PLATFORM_ADMIN, None),
        ("tenant_admin", Role.TENANT_ADMIN, "acme"),
        ("team_admin", Role.TEAM_ADMIN, "own"),
        ("finance", Role.FINANCE, None),
        ("finance of acme", Role.FINANCE, "acme"),
        ("auditor", Role.AUDITOR, None),
        ("auditor of acme", Role.AUDITOR, "acme"),
    ):
        path = () if node is None else world.nodes[node]
        scope = None if node is None else scope_of(path)
        token = made.make("admin-tokens", name=label, role=role.value, scope=scope)
        world.add("admin-tokens", path, token)
        principal = Principal(
            id=token["id"],
            name=label,
            role=role,
            tenant_id=path[0] if path else None,
            team_id=path[-1] if len(path) > 1 else None,
        )
        yield Who(label, role, path, token["secret"], principal)


def scope_of(path: Path) -> dict[str, str]:
    return {path[-1].partition("_")[0]: path[-1]}


def _path_of(world: World, tenant_id: str | None, team_id: str | None) -> Path:
    node = team_id or tenant_id
    if node is None:
        return ()
    return next((path for path in world.nodes.values() if path[-1] == node), ())


def fresh(world: World, noun: str, path: Path) -> dict[str, Any]:
    """The body of a new object of the noun that would lie at this node, or as near as can be."""
    number = next(_NUMBERS)
    name, scope = f"fresh {number}", scope_of(path) if path else None
    if noun in {"tenants", "backends", "models", "exchange-rates"}:
        return _fresh_platform(world, noun, number)
    if noun == "provider-bills":
        return BILL | {"name": name, "backend_ids": world.objects["backends"][()]}
    if noun == "admin-tokens":
        role = {0: "auditor", 1: "tenant_admin"}.get(len(path), "team_admin")
        return {"name": name, "role": role, "scope": scope}
    if noun == "prices":
        return PRICE | ({"tenant_id": path[0]} if path else {})
    parent_id = path[-1] if len(path) > 1 else None
    budgets = world.objects["budgets"].get(path, [""])
    bodies: dict[str, dict[str, Any]] = {
        "teams": {"tenant_id": path[0], "parent_id": parent_id, "name": name},
        "keys": {"team_id": path[-1], "name": name},
        "policies": {"name": name, "scope": scope},
        "budgets": {"scope": scope, "amount": "5", "period": "day"},
        "limits": {"scope": scope, "requests_per_minute": 7},
        "alert-channels": CHANNEL | {"scope": scope, "name": name},
        "loop-breakers": LOOP | {"scope": scope},
        "grants": {"budget_id": budgets[0], "approver": "Ada", **UNTIL},
        "invoices": {"tenant_id": path[0], "period": "2026-10"},
        "discounts": {"tenant_id": path[0], "percent": "7"},
        "commitments": COMMITMENT | {"tenant_id": path[0]},
        "repricings": {"tenant_id": path[0], "period": "2026-01"},
    }
    return bodies[noun]


def _fresh_platform(world: World, noun: str, number: int) -> dict[str, Any]:
    name = f"fresh-{number}"
    if noun == "tenants":
        return {"name": name, "currency": "EUR", "timezone": "UTC"}
    if noun == "backends":
        return {"name": name, "base_url": "http://127.0.0.1:9/v1", "region": "eu"}
    if noun == "exchange-rates":
        return RATE
    backend_id = world.objects["backends"][()][0]
    return {"name": name, "targets": [{"backend_id": backend_id, "upstream_model": "m"}]}


def ask(world: World, who: Who, method: str, path: str, **more: Any) -> httpx.Response:
    return world.client(who).request(method, path, **more)
