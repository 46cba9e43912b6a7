"""A real admin server for tests: the admin API on uvicorn, on a port of its own."""

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from sqlalchemy import Engine

from gateway.admin.api import create_app
from gateway.admin.deps import AdminDeps
from gateway.explaining import explainer
from gateway.keyring import Peppers
from gateway.signing import Signer
from gateway.stores.sql.seal import Sealer
from policies.accounts import Balance
from tests.running import HANGS_AFTER_S
from tests.schema import with_tables

TOKEN = "mha_test-token-test-token"
PEPPERS = Peppers(current=2, by_version={1: b"1" * 32, 2: b"2" * 32})
SEALING_KEY = b"s" * 32


_NUMBERS = itertools.count()


@dataclass
class AdminServer:
    """`accounts` is what the quota store would hold: account key -> what stands on it."""

    url: str
    engine: Engine
    published: list[int] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)  # codes of those that were counted
    accounts: dict[str, Balance] = field(default_factory=dict)
    tenants_see_cost: bool = False

    def client(self, token: str | None = TOKEN, address: str = "") -> httpx.Client:
        """Of whoever has the token, from loopback or, as the server is told, from this address."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        if address:
            headers["x-forwarded-for"] = address
        return httpx.Client(
            base_url=f"{self.url}/admin/v1",
            headers=headers,
            timeout=HANGS_AFTER_S,
            trust_env=False,
            verify=False,
        )

    def stranger(self) -> httpx.Client:
        """Of somebody without a token, from an address that nobody has failed from."""
        return self.client(None, f"203.0.{next(_NUMBERS) % 250}.{next(_NUMBERS) % 250}")


@contextlib.contextmanager
def admin_server(
    database_url: str,
    jurisdictions: frozenset[str] = frozenset({"DE"}),
    *,
    tenants_see_cost: bool = False,
) -> Iterator[AdminServer]:
    """The server on a fresh schema in this database, of a gateway that stands there."""
    engine = with_tables(database_url)
    bound = socket.create_server(("127.0.0.1", 0))
    # With its protocol known, or the event loop leaves Nagle's algorithm on: 40 ms an answer.
    with socket.socket(fileno=bound.detach()) as listener:
        server = AdminServer(f"http://127.0.0.1:{listener.getsockname()[1]}", engine)
        server.tenants_see_cost = tenants_see_cost
        config = uvicorn.Config(
            create_app(deps_of(server, jurisdictions)),
            log_config=None,
            lifespan="off",
            proxy_headers=True,  # unlike the real listener: tests come from many addresses
        )
        with _running(uvicorn.Server(config), listener):
            yield server
    engine.dispose()


def deps_of(server: AdminServer, jurisdictions: frozenset[str]) -> AdminDeps:
    async def publish(revision: int) -> None:
        server.published.append(revision)

    async def account(_tag: str, key: str) -> tuple[int, int] | None:
        return server.accounts.get(key)

    return AdminDeps(
        engine=server.engine,
        admin_token=TOKEN,
        peppers=PEPPERS,
        sealer=Sealer(SEALING_KEY),
        signer=Signer(SEALING_KEY),
        publish=publish,
        account=account,
        jurisdictions=jurisdictions,
        explain=explainer(server.engine, jurisdictions),
        refused=server.refusals.append,
        tenants_see_cost=server.tenants_see_cost,
    )


@contextlib.contextmanager
def _running(server: uvicorn.Server, listener: socket.socket) -> Iterator[None]:
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield  # the socket listens already: early clients queue
    finally:
        server.should_exit = True
        thread.join()


class Made:
    """Objects a test needs but does not care about, made through the API under fresh names."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def name(self) -> str:
        return f"n{next(_NUMBERS)}"

    def make(self, noun: str, **fields: Any) -> dict[str, Any]:
        answer = self.client.post(f"/{noun}", json=fields)
        if answer.status_code != 201:
            raise AssertionError(f"{noun}: {answer.status_code} {answer.text}")
        return dict(answer.json())

    def tenant(self, **fields: Any) -> dict[str, Any]:
        given = {"name": self.name(), "currency": "EUR", "timezone": "Europe/Berlin"} | fields
        return self.make("tenants", **given)

    def team(self, tenant_id: str, **fields: Any) -> dict[str, Any]:
        return self.make("teams", **({"tenant_id": tenant_id, "name": "core"} | fields))

    def key(self, team_id: str, **fields: Any) -> dict[str, Any]:
        return self.make("keys", **({"team_id": team_id, "name": "app"} | fields))

    def backend(self, **fields: Any) -> dict[str, Any]:
        given = {
            "name": self.name(),
            "base_url": "http://127.0.0.1:9/v1",
            "region": "eu-1",
        } | fields
        return self.make("backends", **given)

    def model(self, backend_id: str, **fields: Any) -> dict[str, Any]:
        targets = [{"backend_id": backend_id, "upstream_model": "m"}]
        return self.make("models", **({"name": self.name(), "targets": targets} | fields))


def refused(answer: httpx.Response, status: int, field: str | None = None) -> None:
    """The answer is this refusal, and names the field at fault."""
    fields = [each["field"] for each in answer.json().get("errors", [])]
    if answer.status_code != status or (field is not None and field not in fields):
        raise AssertionError(f"not {status} {field}: {answer.status_code} {answer.text}")
