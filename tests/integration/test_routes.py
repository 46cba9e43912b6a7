"""No route to a backend bypasses admission and metering (L14).

The data listener's own route table is walked: whatever is asked of it, in whatever spelling and
with whatever key, a backend hears of it exactly when a usage event was written, and the other way
round.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio

from billing.usage import DECODER, UsageEvent
from gateway.app.data import data_app
from gateway.stores.redis import keys
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

TAG = "s00"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello there"}]},
    "/v1/completions": {"prompt": "hello there"},
    "/v1/embeddings": {"input": "hello there"},
}
EVERY_FIELD = {name: value for ask in ASKS.values() for name, value in ask.items()}


class Watch:
    """What the backend has heard and what the journal has since the last look."""

    def __init__(self, backend: ScriptedBackend, journal: redis.asyncio.Redis) -> None:
        self._backend = backend
        self._journal = journal
        self._heard = 0

    async def events(self) -> list[UsageEvent]:
        """Taken out of the journal, and with them the decisions on what was refused."""
        key = keys.journal(TAG)
        entries = await self._journal.xrange(key)
        if entries:
            await self._journal.xdel(key, *(entry_id for entry_id, _ in entries))
        return [DECODER.decode(fields[b"e"]) for _, fields in entries if b"e" in fields]

    def heard(self) -> list[str]:
        """The ids of the requests that reached the backend."""
        new = self._backend.book[self._heard :]
        self._heard += len(new)
        return [entry.request_id for entry in new]

    async def holds(self) -> int:
        return int(await self._journal.zcard(keys.holds(TAG)))


@asynccontextmanager
async def watched(home: Path, store_url: str, **settings: str) -> Any:
    async with (
        ScriptedBackend() as backend,
        open_house(home, store_url, **settings) as house,
        redis.asyncio.Redis.from_url(store_url) as client,
    ):
        world = await furnish(house, {"base_url": backend.base_url})
        yield house, world, backend, Watch(backend, client)


def table(house: House) -> set[str]:
    """Every path that the data listener knows."""
    return {route.path for route in data_app(house.data, asyncio.Event()).routes}


def keys_to_try(world: World) -> Iterator[dict[str, str]]:
    yield {}
    yield {"authorization": "Bearer mh_nonsense"}
    yield {"authorization": f"Bearer {world.secret}"}
    yield {"x-api-key": world.secret}


async def send(house: House, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    body = {"model": "chat", "max_tokens": 4, **ASKS.get(path, EVERY_FIELD)}
    answer = await house.client.request(method, path, json=body, headers=headers)
    await house.settled()
    return answer


def test_every_way_to_a_model_leaves_exactly_one_usage_event_and_no_hold(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with watched(tmp_path, store_url) as (house, world, _, watch):
            headers = {"authorization": f"Bearer {world.secret}"}
            for path in ASKS:
                answer = await send(house, "POST", path, headers)
                assert answer.status_code == 200, (path, answer.text)
                (event,) = await watch.events()
                assert watch.heard() == [event.request_id] == [answer.headers["x-request-id"]]
                assert event.usage.input > 0
                assert event.charge_picos > 0
                assert event.counter_nanos > 0
                assert event.key_id == world.key["id"]
                assert await watch.holds() == 0

    run(scenario())


def test_no_other_route_method_or_key_reaches_a_backend(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with watched(tmp_path, store_url) as (house, world, backend, watch):
            known = table(house)
            assert known >= set(ASKS)
            told: Counter[int] = Counter()
            for path in sorted(known):
                for method in METHODS:
                    for headers in keys_to_try(world):
                        valid = world.secret in "".join(headers.values())
                        if path in ASKS and method == "POST" and valid:
                            continue
                        answer = await send(house, method, path, headers)
                        told[answer.status_code] += 1
            assert watch.heard() == []
            assert backend.accepted == 0  # not even a connection
            assert await watch.events() == []
            assert await watch.holds() == 0
            assert set(told) <= {200, 204, 400, 401, 404, 405}, told

    run(scenario())


def spellings(path: str) -> list[str]:
    """The path as somebody would write it who looks for a way round."""
    last = path.rpartition("/")[2]
    return [
        path + "/",
        path + "?api-version=1",
        path + ";x=1",
        path + "/extra",
        path + "/../" + last,
        path.upper(),
        path.replace("/v1/", "//v1//"),
        path.replace("/v1/", "/v1/models/../"),
        path.replace("/v1/", "/v1/models/"),
        path.replace("/", "%2f"),
        path.replace("o", "%6F"),
        "/" + path,
        path.removeprefix("/v1"),
    ]


def test_a_path_in_another_spelling_is_either_unknown_or_metered(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with watched(tmp_path, store_url) as (house, world, _, watch):
            host = house.url.removeprefix("http://")
            reached = []
            for path in ASKS:
                for target in [*spellings(path), house.url + path, "http://elsewhere" + path]:
                    status = await raw(host, target, world.secret, path)
                    await house.settled()
                    events = [event.request_id for event in await watch.events()]
                    assert events == watch.heard(), target
                    assert len(events) == (status == 200), target
                    reached += [target] * len(events)
            assert set(ASKS) <= {target.partition("?")[0] for target in reached}
            assert await watch.holds() == 0

    run(scenario())


async def raw(host: str, target: str, key: str, path: str) -> int:
    """The status of a POST whose target no client library has tidied up."""
    body = httpx.Request("POST", "http://x", json={"model": "chat", **ASKS[path]}).content
    head = f"POST {target} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    try:
        writer.write(head.encode() + b"connection: close\r\n\r\n" + body)
        return int((await reader.read()).split(b" ", 2)[1])
    finally:
        writer.close()
        await writer.wait_closed()


def test_what_is_refused_never_reaches_a_backend_and_is_never_metered(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with watched(tmp_path, store_url) as (house, world, backend, watch):
            scope = {"key": world.key["id"]}
            await house.make("budgets", scope=scope, amount="0.000001", period="month")
            await house.in_force()
            headers = {"authorization": f"Bearer {world.secret}"}
            for path in ASKS:
                answer = await send(house, "POST", path, headers)
                assert answer.json()["error"]["code"] == "insufficient_quota"
            assert (watch.heard(), await watch.events(), await watch.holds()) == ([], [], 0)
            assert backend.accepted == 0

    run(scenario())


def test_no_call_of_the_admin_api_reaches_a_backend(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with watched(tmp_path, store_url) as (house, _, backend, watch):
            described = (await house.admin.get("http://admin/admin/openapi.json")).json()["paths"]
            assert len(described) > 20
            for path, methods in described.items():
                target = path.removeprefix("/admin/v1").replace("{id}", "none_00")
                for method in methods:
                    await house.admin.request(method.upper(), target, json={"model": "chat"})
            assert backend.accepted == 0
            assert await watch.events() == []

    run(scenario())
