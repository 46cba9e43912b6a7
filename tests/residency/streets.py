"""Towns for real: a whole gateway in this loop, backends on sockets with books of their own, and
the towns' configuration in the snapshot that serves. Each backend object is known at a socket by
its credential, and a request by its text.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway import clock, keyring
from gateway.backends.answer import Answer
from gateway.dataplane.flow import Flow
from gateway.dataplane.forward import Forwarder
from gateway.dataplane.snapshot import Snapshot
from gateway.stores import recount
from gateway.stores.sql import rows
from policies.decision import Deny
from policies.document import canonical, parse
from tests.house import House, open_house
from tests.residency.law import offences
from tests.residency.towns import Ask, Site, Town
from tests.residency.walk import Generous
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend
from tests.servers import nobody

AT_ONCE = 24
PATIENCE_MS = 250  # of the gateway, with a backend that says nothing
SCRIPTS = {
    "serves": Script(tokens=3),
    "slow": Script(tokens=3, delay_ms=40),
    "busy": Script(status=429),
    "broken": Script(status=500),
    "cuts": Script(cut_after_chunks=0, cut_at_byte=9),
    "garbage": Script(body="<html>"),
    "stalls": Script(tokens=3, stall_after_chunks=0),
    "silent": Script(silent=True),
}
DEAR, CHEAP = "100000000", "1"  # per million tokens; a budget has a hundred


class Streets:
    """`seen` counts what happened; `offences` what should not have."""

    def __init__(self, house: House, servers: dict[str, ScriptedBackend], nobody: str) -> None:
        self.house = house
        self.seen: Counter[str] = Counter()
        self.offences: list[str] = []
        self._servers = servers
        self._closed = f"{nobody}/v1"
        house.data.plane._forwarder._retries = Generous()

    def forget_the_rules(self) -> None:
        """A wrong step, planted: a retry takes whoever is left."""
        given = self.house.data.plane._forwarder
        self.house.data.plane._forwarder = Heedless(
            given._transport, given._backends, given._spool, given._retries, given.turns
        )

    def forget_the_shadowed(self) -> None:
        """A wrong step, planted: a shadow goes wherever whoever pays for it may go."""
        shadows = self.house.data.plane.shadows
        shadows._route = lambda _revision, paying, _asking, _asked: paying  # type: ignore[method-assign]

    async def visit(self, towns: Sequence[Town]) -> None:
        """Asks all that these towns ask, some at a time, and reads the books."""
        secrets = {town.id: keyring.make() for town in towns}
        await self._move_in(towns, secrets)
        turn = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for town in towns:
                for ask in town.asks:
                    tasks.create_task(self._one(turn, ask, secrets[town.id].text))
        await self.house.settled()
        self._read_the_books(towns)

    async def _move_in(self, towns: Sequence[Town], secrets: dict[str, keyring.Made]) -> None:
        plane, deps = self.house.data.plane, self.house.opened.deps
        pepper = plane.peppers.by_version[plane.peppers.current]
        parts = [_furnished(town, secrets[town.id], pepper, self._url) for town in towns]
        whole = rows.Configuration(
            revision=plane.snapshot.revision,
            epochs=plane.snapshot.epochs,
            **{name: tuple(each for part in parts for each in part[name]) for name in parts[0]},
        )
        now_us = clock.now_us()
        accounts = [
            counted
            for tenant, budget in zip(whole.tenants, whole.budgets, strict=True)
            for counted in recount.accounts(tenant, [budget], (), (), now_us)
        ]
        assert deps.store is not None
        await recount.recount(deps.engine, deps.store, "s00", accounts, unopened_only=True)
        plane.snapshot = Snapshot(whole, lambda backend: backend.id)

    def _url(self, site: Site) -> str:
        if site.behaviour == "down":
            return self._closed
        return self._servers[site.behaviour].base_url

    async def _one(self, turn: asyncio.Semaphore, ask: Ask, secret: str) -> None:
        tags = ",".join(f"{name}={value}" for name, value in ask.tags.items())
        headers = {"authorization": f"Bearer {secret}", "x-meterhouse-tags": tags}
        leaves_s = None if ask.leaves_after_ms is None else ask.leaves_after_ms / 1000
        async with turn:
            try:
                async with asyncio.timeout(leaves_s):
                    answer = await self.house.client.post(
                        "/v1/chat/completions", json=_body(ask), headers=headers
                    )
            except TimeoutError:
                self.seen["left"] += 1
                return
            except (httpx.RemoteProtocolError, httpx.ReadError):
                self.seen["cut"] += 1
                return
        self.seen[_told(answer)] += 1
        self.seen["degraded"] += "x-meterhouse-degraded-from" in answer.headers

    def _read_the_books(self, towns: Sequence[Town]) -> None:
        by_site = {site.id: (town, site) for town in towns for site in town.sites}
        sites: Counter[str] = Counter()  # that heard of a request
        by_ask = {ask.id: ask for town in towns for ask in town.asks}
        for server in self._servers.values():
            for entry in server.book:
                town, site = by_site[entry.headers["authorization"].removeprefix("Bearer ")]
                ask = by_ask[entry.body["messages"][0]["content"]]
                self.seen["bytes went"] += 1
                sites[ask.id] += 1
                shadow = entry.model == town.mirror
                self.seen["shadows"] += shadow
                self.seen["to a stand-in"] += not shadow and entry.model != ask.model
                found = offences(town, ask, entry.model, site)
                if found or ask not in town.asks:
                    self.offences.append(f"{ask} at {site} for {entry.model}: {found}")
            server.book.clear()
        self.seen["asked of several"] += sum(heard > 1 for heard in sites.values())
        self.seen["forbidden"] += sum(
            bool(offences(town, ask, ask.model, site))
            for town in towns
            for ask in town.asks
            for site in town.models[ask.model]
        )


def _told(answer: httpx.Response) -> str:
    if answer.status_code == 200:
        return "served"
    return str(answer.json()["error"]["code"])


def _body(ask: Ask) -> dict[str, Any]:
    messages = [{"role": "user", "content": ask.id}]
    return {"model": ask.model, "messages": messages, "stream": ask.stream, "max_tokens": 20}


class Heedless(Forwarder):
    """The rules were asked for the first attempt only."""

    async def forward(self, flow: Flow) -> Answer | Deny:
        plan, route = flow.plan, flow.route
        assert plan is not None
        assert route is not None
        others = [each for each in route.panel.candidates if each not in plan.attempts]
        flow.plan = msgspec.structs.replace(plan, attempts=(*plan.attempts, *others))
        return await super().forward(flow)


@contextlib.asynccontextmanager
async def streets(home: Path, store_url: str, gateway: tuple[str, ...]) -> AsyncIterator[Streets]:
    """A gateway that stands there, with nobody in its towns yet."""
    async with contextlib.AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(ScriptedBackend()) for name in SCRIPTS}
        for name, server in servers.items():
            server.script = SCRIPTS[name]
        stands = ",".join(gateway)
        house = await stack.enter_async_context(
            open_house(home, store_url, JURISDICTION=stands, SHADOW_REQUESTS=str(AT_ONCE))
        )
        yield Streets(house, servers, stack.enter_context(nobody()))


def _furnished(
    town: Town, secret: keyring.Made, pepper: bytes, url: Callable[[Site], str]
) -> dict[str, list[Any]]:
    """The town as the database would have it."""
    team, squad, key, lab = (f"{town.id}-{name}" for name in ("team", "squad", "key", "lab"))
    ids = {"tenant": ("tenant", town.id), "team": ("team", team), "squad": ("team", squad),
           "key": ("key", key), "lab": ("key", lab)}  # fmt: skip
    return {
        "tenants": [rows.Tenant(id=town.id, name=town.id, currency="USD", timezone="UTC")],
        "teams": [
            rows.Team(id=team, tenant_id=town.id, name="team"),
            rows.Team(id=squad, tenant_id=town.id, parent_id=team, name="squad"),
        ],
        "keys": [
            rows.Key(id=key, tenant_id=town.id, team_id=squad, name="app"),
            rows.Key(id=lab, tenant_id=town.id, team_id=team, name="lab"),
        ],
        "secrets": [
            rows.KeySecret(
                public_id=secret.public_id,
                key_id=key,
                digest=keyring.digest(pepper, secret.secret),
            )
        ],
        "backends": [_backend(site, url(site)) for site in town.sites],
        "models": list(_models(town)),
        "policies": [_policy(town, number, *ids[each["scope"]]) for number, each in
                     enumerate(town.documents)],
        "budgets": [
            rows.Budget(
                id=f"{town.id}-budget", tenant_id=town.id, scope_kind="tenant", scope_id=town.id,
                amount="100", period="total", mode="hard",
            )
        ],
        "prices": list(_prices(town)),
    }  # fmt: skip


def _backend(site: Site, base_url: str) -> rows.Backend:
    return rows.Backend(
        id=site.id,
        name=site.id,
        dialect="openai",
        base_url=base_url,
        region="somewhere",
        jurisdictions=site.jurisdictions,
        data_classes=site.data_classes,
        placement=site.placement,
        first_byte_timeout_ms=PATIENCE_MS,
        idle_timeout_ms=PATIENCE_MS,
    )


def _models(town: Town) -> Iterator[rows.Model]:
    for name, sites in town.models.items():
        targets = tuple(
            rows.Target(backend_id=site.id, upstream_model=name, weight=site.weight)
            for site in sites
        )
        yield rows.Model(id=name, name=name, targets=targets, max_output_tokens=100)


def _policy(town: Town, number: int, kind: str, scope_id: str) -> rows.Policy:
    written = town.documents[number]
    return rows.Policy(
        id=f"{town.id}-p{number}",
        policy_version=1,
        name=written["name"],
        scope_kind=kind,
        scope_id=scope_id,
        tenant_id=town.id,
        state="active",
        document=canonical(parse(written | {"scope": {kind: scope_id}})),
    )


def _prices(town: Town) -> Iterator[rows.Price]:
    """What a model charges, and what each backend costs for each. In every other town a dear model
    charges what it costs, and that is dear at some backends only.
    """
    for (model, sites), meter in itertools.product(town.models.items(), ("input", "output")):
        by_backend = model in town.dear and int(town.id[1:]) % 2 == 0
        if not by_backend:
            yield rows.Price(
                id=f"{model}-{meter}", book="charge", model=model, meter=meter,
                amount_per_million=DEAR if model in town.dear else CHEAP, currency="USD",
                effective_from_us=0,
            )  # fmt: skip
        for site in sites:
            amount = (DEAR if site.cost else CHEAP) if by_backend else str(site.cost)
            yield rows.Price(
                id=f"{model}-{site.id}-{meter}", book="cost", backend_id=site.id,
                upstream_model=model, meter=meter, amount_per_million=amount,
                currency="USD", effective_from_us=0,
            )  # fmt: skip
