"""A request may be cancelled at any await: its hold ends, and what a backend did is told once."""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from billing.usage import DECODER, UsageEvent
from gateway.jobs import drain_journal
from gateway.stores import spooled
from gateway.stores.redis import keys
from gateway.stores.redis.journal import Journal
from gateway.wiring.jobs import open_jobs
from policies.failover import RetryBudget
from tests.crash.clients import body
from tests.crash.stepping import Stepped
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

TAG = "s00"
PATH = "/v1/chat/completions"
KINDS = ("plain", "stream", "counted", "retried", "dead", "refused")


class Sweep:
    """One house; one request after another, each cancelled one await later."""

    def __init__(self, house: House, world: World, backends: tuple[ScriptedBackend, ...]) -> None:
        self.house = house
        self.backends = backends
        self.poor = ""
        self.events = 0
        self.posted = 0
        self._secret = world.secret
        self._refusals: list[Script] = []  # whichever backend is asked first
        self._ids = {b["id"]: backend for b, backend in zip(world.backends, backends, strict=False)}

    async def once(self, kind: str, at: int, again: int) -> bool:
        """Whether the request came to its end before it was to be cancelled."""
        for backend in self.backends:
            backend.book.clear()
            backend.scripts = self._refusals
        self._refusals[:] = [Script(status=429)] if kind == "retried" else []
        self.house.data.plane._forwarder._retries = RetryBudget()  # or the sweep soon has none
        sent: list[Any] = []
        stepped = Stepped(self._serving(kind, sent), at, again)
        try:
            await stepped
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            while task.uncancel():
                pass
        told = f"{kind}, cancelled at await {at} of {stepped.awaits}"
        await self._rest(told)
        self._check(told, await self._new_events(), whole=bool(sent) and not sent[-1]["more_body"])
        if stepped.awaits >= at:
            return False
        attempts = sum(len(backend.book) for backend in self.backends)
        assert attempts == {"retried": 2, "dead": 0, "refused": 0}.get(kind, 1), told
        return True

    async def _serving(self, kind: str, sent: list[Any]) -> None:
        secret = self.poor if kind == "refused" else self._secret
        packed = json.dumps(body("plain" if kind == "refused" else kind)).encode()
        scope: Any = {"headers": [(b"authorization", b"Bearer " + secret.encode())]}
        pieces = [packed[:20], packed[20:]]

        async def receive() -> Any:
            await asyncio.sleep(0)
            if not pieces:
                await asyncio.Event().wait()  # a client that stays
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            if message["type"] == "http.response.body":
                sent.append(message)

        await self.house.data.plane.serve("chat", PATH, scope, receive, send)

    async def _rest(self, told: str) -> None:
        """Returns when nothing is held, on its way or at work."""
        data, store = self.house.data, self.house.data.channels.house
        try:
            async with asyncio.timeout(10):
                while (
                    data.plane.in_flight
                    or data.plane.holds.busy
                    or await store.ask("ZCARD", keys.holds(TAG))
                    or any(c.heard for backend in self.backends for c in backend.connections)
                ):
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"{told}: something is held for ever") from None
        left = spooled.open_requests(spooled.read(data.spool.path))
        assert not left, f"{told}: the spool still has {left}"

    async def _new_events(self) -> list[UsageEvent]:
        found = await self.house.data.channels.house.ask("XRANGE", keys.journal(TAG), "-", "+")
        new, self.events = found[self.events :], len(found)
        return [DECODER.decode(fields[1]) for _, fields in new]

    def _check(self, told: str, events: list[UsageEvent], *, whole: bool) -> None:
        by_backend = {id_: len(backend.book) for id_, backend in self._ids.items()}
        for one in events:
            known = by_backend.get(one.backend_id, 0)
            assert known or one.provenance.value == "estimated", f"{told}: nobody did {one}"
            by_backend[one.backend_id] = max(0, known - 1)
        assert not any(by_backend.values()), f"{told}: a backend did more than was told"
        winners = [one for one in events if one.winner]
        assert len(winners) <= 1, told
        self.posted += sum(one.counter_nanos for one in events)


@pytest.mark.parametrize("again", [0, 1])
def test_a_request_cancelled_at_any_await_leaves_nothing_behind(
    tmp_path: Path, store_url: str, figure: Callable[[str], None], again: int
) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            closed = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with (
            ScriptedBackend() as one,
            ScriptedBackend() as two,
            open_house(tmp_path, store_url) as house,
        ):
            world = await furnish(house, {"base_url": one.base_url}, {"base_url": two.base_url})
            sweep = Sweep(house, world, (one, two))
            await _more(house, world, sweep, closed)
            swept = {}
            for kind in KINDS:
                at = 1
                while not await sweep.once(kind, at, again):
                    at += 1
                swept[kind] = at - 1
            assert min(swept.values()) > 3, swept
            await _sums(house, sweep)
            figure(f"awaits cancelled one by one ({again} more after it): {swept}")

    run(scenario(), within_s=180)


async def _more(house: House, world: World, sweep: Sweep, closed: str) -> None:
    """A model that no backend can be reached for; a key without any money."""
    made = await house.make(
        "backends", name="closed", base_url=closed, dialect="openai", region="eu-central",
        jurisdictions=["DE"], placement="cloud",
    )  # fmt: skip
    await house.make(
        "models", name="dead", capabilities=["chat"], context_window=8192, max_output_tokens=512,
        targets=[{"upstream_model": "m", "weight": 1, "backend_id": made["id"]}],
    )  # fmt: skip
    for meter in ("input", "output"):
        await house.make(
            "prices", book="charge", model="dead", meter=meter, amount_per_million="1",
            currency="USD", effective_from="2026-01-01T00:00:00Z",
        )  # fmt: skip
    await house.make("budgets", scope={"key": world.key["id"]}, amount="1000", period="month")
    await house.make("limits", scope={"key": world.key["id"]}, concurrent_requests=2)
    poor = await house.make("keys", team_id=world.squad["id"], name="poor")
    await house.make("budgets", scope={"key": poor["id"]}, amount="0.000001", period="month")
    sweep.poor = poor["secret"]
    await house.in_force()


async def _sums(house: House, sweep: Sweep) -> None:
    """Counters, journal and ledger say the same in the end."""
    async with open_jobs(house.settings, "test") as deps:
        stopping = asyncio.Event()
        stopping.set()
        assert await drain_journal.drain(deps, TAG, stopping) == sweep.events
        assert await Journal(deps.client, TAG, "test").length() == 0
    budgets = (await house.look("budgets"))["items"]
    assert {budget["held"] for budget in budgets} == {"0"}
    spent = next(b["spent"] for b in budgets if b["amount"] != "0.000001")
    assert round(float(spent) * 10**9) == sweep.posted
