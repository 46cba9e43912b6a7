"""The whole gateway in one event loop, on real stores: a data plane on a socket, the admin API
behind it, the ledger's jobs on demand. Tests configure it the way a platform engineer would: by the
admin API.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from litestar import Litestar

from gateway.admin import problems
from gateway.admin.api import create_admin
from gateway.app.data import data_app
from gateway.app.server import server_config
from gateway.settings import Settings
from gateway.wiring.admin import Admin, open_admin
from gateway.wiring.data import Data, open_data
from tests.running import HANGS_AFTER_S
from tests.schema import with_tables

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the trusted roots takes 20 ms a client


def plain_client(url: str) -> httpx.AsyncClient:
    """A client of a gateway that speaks HTTP, as patient as a busy machine needs it."""
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=HANGS_AFTER_S, limits=limits, verify=_NO_TLS)


class House:
    """A running gateway. `admin` and `client` are HTTP clients of its two listeners."""

    def __init__(
        self, settings: Settings, data: Data, admin: Admin, url: str, admin_app: Litestar
    ) -> None:
        self.settings = settings
        self.data = data
        self.opened = admin
        self.url = url
        token = admin.deps.admin_token
        self.admin = httpx.AsyncClient(
            transport=httpx.ASGITransport(admin_app),
            base_url="http://admin/admin/v1",
            headers={"authorization": f"Bearer {token}"},
        )
        self.client = plain_client(url)

    async def make(self, noun: str, **fields: Any) -> dict[str, Any]:
        """POST to the admin API; the object made."""
        answer = await self.admin.post(f"/{noun}", json=fields)
        if answer.status_code != 201:
            raise AssertionError(f"POST {noun} {fields}: {answer.status_code} {answer.text}")
        made: dict[str, Any] = answer.json()
        return made

    async def look(self, path: str, **query: Any) -> Any:
        """GET from the admin API."""
        answer = await self.admin.get(f"/{path}", params=query)
        if answer.status_code != 200:
            raise AssertionError(f"GET {path}: {answer.status_code} {answer.text}")
        return answer.json()

    async def policy(self, **document: Any) -> dict[str, Any]:
        """A policy, made and activated."""
        made = await self.make("policies", **document)
        answer = await self.admin.post(f"/policies/{made['id']}/activate", json={})
        if answer.status_code not in (200, 201):
            raise AssertionError(answer.text)
        return made

    async def in_force(self) -> None:
        """Returns once the data plane serves by the newest configuration."""
        from gateway.stores.sql import configuration

        newest = await asyncio.to_thread(configuration.revision, self.opened.deps.engine)
        while self.data.plane.snapshot.revision < newest:
            await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Returns once every request that held something has been settled."""
        while self.data.plane.in_flight or self.data.plane.shadows.under_way:
            await asyncio.sleep(0.005)

    async def ask(
        self, key: str, path: str = "/v1/chat/completions", **body: Any
    ) -> httpx.Response:
        """One request with an application key."""
        return await self.client.post(path, json=body, headers={"authorization": f"Bearer {key}"})


@asynccontextmanager
async def open_house(home: Path, store_url: str, **overrides: str) -> AsyncIterator[House]:
    """A gateway under `home` on the store of `store_url`; SQLite unless overridden. Its store may
    take its time, as everything shares one event loop: who tests impatience says so.
    """
    environ = {
        "METERHOUSE_STORE_TIMEOUT_MS": "30000",
        "METERHOUSE_HOME": str(home),
        "METERHOUSE_REDIS_URL": store_url,
        "METERHOUSE_WORKERS": "1",
    }
    environ |= {f"METERHOUSE_{name}": value for name, value in overrides.items()}
    environ |= {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    settings = Settings.from_env(environ)
    home.mkdir(parents=True, exist_ok=True)
    engine = await asyncio.to_thread(with_tables, settings.database_url)
    engine.dispose()
    async with open_data(settings, 0) as data, open_admin(settings) as admin:
        admin_app = Litestar(
            create_admin(admin.deps),
            openapi_config=None,
            logging_config=None,
            exception_handlers=problems.HANDLERS,
        )
        bound = socket.create_server(("127.0.0.1", 0))
        # With its protocol known, or the event loop leaves Nagle's algorithm on.
        listener = socket.socket(fileno=bound.detach())
        config = server_config(data_app(data, asyncio.Event()), 5)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        house = House(settings, data, admin, url, admin_app)
        try:
            yield house
        finally:
            await house.client.aclose()
            await house.admin.aclose()
            await data.plane.drain(0)
            server.should_exit = True
            await serving


class World:
    """One tenant with nested teams, a key, a model and a backend: what most tests start from."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.tenant: dict[str, Any] = {}
        self.team: dict[str, Any] = {}
        self.squad: dict[str, Any] = {}
        self.key: dict[str, Any] = {}
        self.secret = ""
        self.backends: list[dict[str, Any]] = []
        self.model: dict[str, Any] = {}


async def furnish(
    house: House,
    *backends: dict[str, Any],
    charge: tuple[str, str] = ("3", "15"),
    model: dict[str, Any] | None = None,
) -> World:
    """Tenant acme, team platform, team search below it, key app, model `chat` on every backend
    given (`{"base_url": ..., ...}`), with charge prices per million of input and output."""
    world = World(house)
    world.tenant = await house.make(
        "tenants", name="acme", currency="USD", timezone="Europe/Berlin"
    )
    tenant_id = world.tenant["id"]
    world.team = await house.make("teams", tenant_id=tenant_id, name="platform", cost_center="100")
    world.squad = await house.make(
        "teams", tenant_id=tenant_id, parent_id=world.team["id"], name="search", cost_center="110"
    )
    world.key = await house.make("keys", team_id=world.squad["id"], name="app")
    world.secret = world.key["secret"]
    for number, fields in enumerate(backends):
        given = {
            "name": f"backend-{number}",
            "dialect": "openai",
            "region": "eu-central",
            "jurisdictions": ["DE"],
            "placement": "cloud",
            "connect_timeout_ms": 60_000,  # it shares our event loop
        } | fields
        world.backends.append(await house.make("backends", **given))
    fields = {
        "name": "chat",
        "capabilities": ["chat", "completions", "embeddings", "tools", "json_schema", "vision"],
        "context_window": 8192,
        "max_output_tokens": 4096,
        "targets": [
            {"backend_id": backend["id"], "upstream_model": "m", "weight": 1}
            for backend in world.backends
        ],
    } | (model or {})
    world.model = await house.make("models", **fields)
    for meter, amount in zip(("input", "output"), charge, strict=True):
        price = await house.make(
            "prices",
            book="charge",
            model=fields["name"],
            meter=meter,
            amount_per_million=amount,
            currency="USD",
            effective_from="2026-01-01T00:00:00Z",
            state="draft",
        )
        await house.admin.post(f"/prices/{price['id']}/approve")
    await house.in_force()
    return world
