"""One house, and one request after another, each cancelled one await later; after each everything
is at rest and told once.
"""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from billing.usage import DECODER, UsageEvent
from gateway.dataplane.outlet import EXTENSION
from gateway.jobs import drain_journal
from gateway.stores import spooled
from gateway.stores.redis import keys
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.redis.journal import Journal
from gateway.wiring.jobs import open_jobs
from policies.failover import RetryBudget
from tests.crash.clients import body
from tests.crash.stepping import Stepped
from tests.fault_proxy import FaultProxy
from tests.house import House, World, furnish, open_house
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

TAG: Final = "s00"
PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True)
class Kind:
    """How a request is asked. `of`: its kind in tests.crash.clients."""

    of: str
    model: str = "chat"
    key: Literal["app", "poor", "small", "open", "leased", "strict", "lab"] = "app"
    attempts: int = 1  # when it is not cancelled
    # An idempotency key. asked: for the first time; repeated: the request is over, its answer kept.
    ticket: Literal["", "asked", "repeated"] = ""
    store_away: bool = False
    stopping: bool = False  # the worker is, and has run out of patience


KINDS: Final = {
    "plain": Kind("plain"),
    "stream": Kind("stream"),
    "counted": Kind("counted"),
    "retried": Kind("retried", attempts=2),
    "hedged": Kind("hedged", "hedged", attempts=2),
    "hedged stream": Kind("hedged stream", "hedged", attempts=2),
    "shadowed": Kind("plain", "shadowed", attempts=2),
    "shadowed stream": Kind("stream", "shadowed", attempts=2),
    "dead": Kind("dead", "dead", attempts=0),
    "refused": Kind("plain", key="poor", attempts=0),
    "degraded": Kind("plain", key="small"),
    "degraded stream": Kind("stream", key="small"),
    "keyed": Kind("plain", ticket="asked"),
    "kept": Kind("plain", "kept", ticket="asked"),
    "kept stream": Kind("stream", "kept", ticket="asked"),
    "repeated": Kind("plain", "kept", ticket="repeated", attempts=0),
    "repeated too late": Kind("plain", ticket="repeated", attempts=0),
    "cut by a restart": Kind("stream", stopping=True),
    "open": Kind("plain", key="open", store_away=True),
    "open stream": Kind("stream", key="open", store_away=True),
    "leased": Kind("plain", key="leased", store_away=True),
    "leased stream": Kind("stream", key="leased", store_away=True),
    "without a store": Kind("plain", key="strict", store_away=True, attempts=0),
}


class Sweep:
    """`posted`: counter nanos, by application key."""

    def __init__(self, house: House, proxy: FaultProxy, *backends: ScriptedBackend) -> None:
        self.house = house
        self.backends = backends
        self.entries = 0  # of the journal
        self.told = 0  # usage events among them
        self.posted: Counter[str] = Counter()
        self.secrets: dict[str, str] = {}
        self.ids: dict[str, ScriptedBackend] = {}
        self.budgets: dict[str, str] = {}  # application key -> its budget
        self.leased = ""  # that of the key `leased`
        self._proxy = proxy
        self._refusals: list[Script] = []  # of whichever backend is asked first
        self._tickets = 0

    async def through(self, name: str, again: int) -> int:
        """At how many awaits a request of this kind was cancelled, one after the other."""
        at = 1
        while not await self._once(name, at, again):
            at += 1
        return at - 1

    async def _once(self, name: str, at: int, again: int) -> bool:
        """Whether the request came to its end before it was to be cancelled."""
        kind, told = KINDS[name], f"{name}, cancelled at await {at}"
        self._tickets += 1
        self._begin_anew(kind)
        if kind.ticket == "repeated":
            assert await self._serve(kind) == 200, told
            await self._rest(told)
            self._check(told, await self._new_events())
            self._begin_anew(kind)
        if kind.key == "leased":
            await self._lease(kind, told)
        plane = self.house.data.plane
        if kind.store_away:
            self._proxy.refuse = True
            self._proxy.reset()
        plane.stopping = kind.stopping
        stepped = Stepped(self._serving(kind, []), at, again)
        await _to_its_end(stepped)
        plane.stopping = False
        if kind.store_away:
            await self._store_returns()
        await self._rest(told)
        if kind.ticket == "asked":
            await self._ask_again(kind, told)
        asked = self._attempts
        self._check(told, await self._new_events())
        if stepped.awaits >= at:
            return False
        assert asked == kind.attempts, told
        return True

    async def _lease(self, kind: Kind, told: str) -> None:
        """Returns when the worker may spend without the store."""
        leases = self.house.data.plane._outage.leases
        while not any(
            lease.account.id == self.leased and lease.left and not lease.is_worn
            for lease in leases.book.leases.values()
        ):
            assert await self._serve(kind) == 200, told
            await self._rest(told)
            self._check(told, await self._new_events())
            self._begin_anew(kind)
            await leases.look()

    def _begin_anew(self, kind: Kind) -> None:
        for backend in self.backends:
            backend.book.clear()
            backend.scripts = self._refusals
        self._refusals[:] = [Script(status=429)] if kind.of == "retried" else []
        if kind.model == "hedged":
            self._refusals[:] = [Script(delay_ms=400)]
        self.house.data.plane._forwarder._retries = RetryBudget()  # or the sweep soon has none

    async def _store_returns(self) -> None:
        """To all connections that the worker has; the last that was refused may still be ending."""
        self._proxy.refuse = False
        channels = self.house.data.channels
        async with asyncio.timeout(60):
            while True:
                with suppress(StoreUnavailable):
                    await channels.open()
                    await channels.house.ask("PING")
                    return
                await asyncio.sleep(0.002)

    async def _ask_again(self, kind: Kind, told: str) -> None:
        """Whoever asks again with the same key is served if nobody was asked yet, and only then."""
        before = self._attempts
        status = await self._serve(kind)
        await self._rest(told)
        finished = {200, 409} if kind.model == "kept" else {409}  # kept is what was whole
        assert status in (finished if before else {200}), told
        assert self._attempts == 1, f"{told}: asked again, {self._attempts} dispatches"

    @property
    def _attempts(self) -> int:
        return sum(len(backend.book) for backend in self.backends)

    async def _serve(self, kind: Kind) -> int:
        """One whole request; its status."""
        sent: list[Any] = []
        await self._serving(kind, sent)
        return int(sent[0]["status"])

    async def _serving(self, kind: Kind, sent: list[Any]) -> None:
        asked = body(kind.of) | {"model": kind.model}
        packed = json.dumps(asked).encode()
        headers = [(b"authorization", b"Bearer " + self.secrets[kind.key].encode())]
        if kind.ticket:
            headers.append((b"idempotency-key", b"ticket-%d" % self._tickets))
        took = itertools.cycle((True, True, False))  # every third piece has to be waited for
        scope: Any = {"headers": headers, "extensions": {EXTENSION: lambda _: next(took)}}
        pieces = [packed[:20], packed[20:]]

        async def receive() -> Any:
            await asyncio.sleep(0)
            if not pieces:
                await asyncio.Event().wait()  # a client that stays
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            sent.append(message)

        await self.house.data.plane.serve("chat", PATH, scope, receive, send)

    async def _rest(self, told: str) -> None:
        """Returns when nothing is held, on its way or at work."""
        data, store = self.house.data, self.house.data.channels.house
        try:
            async with asyncio.timeout(60):
                while (
                    data.plane.in_flight
                    or data.plane.shadows.under_way
                    or data.plane.holds.busy
                    or data.plane._settler.waiting
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
        new, self.entries = found[self.entries :], len(found)
        told = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in new]
        events = [DECODER.decode(one[b"e"]) for one in told if one.get(b"e")]
        self.told += len(events)
        return events

    def _check(self, told: str, events: list[UsageEvent]) -> None:
        by_backend = {id_: len(backend.book) for id_, backend in self.ids.items()}
        for one in events:
            known = by_backend.get(one.backend_id, 0)
            assert known or one.provenance.value == "estimated", f"{told}: nobody did {one}"
            by_backend[one.backend_id] = max(0, known - 1)
            self.posted[one.key_id] += one.counter_nanos
        assert not any(by_backend.values()), f"{told}: a backend did more than was told"
        winners = Counter(one.request_id for one in events if one.winner)
        assert all(times == 1 for times in winners.values()), told
        assert len(winners) <= (2 if "shadowed" in told else 1), told

    async def sums(self) -> None:
        """Counters, journal and ledger say the same in the end, and no lease waits for anybody."""
        leases = self.house.data.plane._outage.leases
        for lease in (*leases.book.leases.values(), *leases.book._retired):
            assert (lease.reserved, lease.unsettled) == (0, 0)
        async with open_jobs(self.house.settings, "test") as deps:
            stopping = asyncio.Event()
            stopping.set()
            booked = 0
            while await Journal(deps.client, TAG, "test").length():
                booked += await drain_journal.drain(deps, TAG, stopping)
            assert booked == self.told
        for key_id, budget_id in self.budgets.items():
            shown = await self.house.look(f"budgets/{budget_id}")
            assert shown["held"] == "0", shown
            assert round(float(shown["spent"]) * 10**9) == self.posted[key_id], shown


async def _to_its_end(stepped: Stepped) -> None:
    try:
        await stepped
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        while task.uncancel():
            pass


@asynccontextmanager
async def sweep_house(home: Path, store_url: str, closed: str) -> AsyncIterator[Sweep]:
    """Nobody listens at `closed`."""
    target = Path(store_url.removeprefix("unix://").partition("?")[0])
    async with (
        ScriptedBackend() as one,
        ScriptedBackend() as two,
        FaultProxy(target) as proxy,
        open_house(home, f"redis://127.0.0.1:{proxy.port}") as house,
    ):
        world = await furnish(house, {"base_url": one.base_url}, {"base_url": two.base_url})
        sweep = Sweep(house, proxy, one, two)
        sweep.ids = {b["id"]: it for b, it in zip(world.backends, sweep.backends, strict=True)}
        await _keys(house, world, sweep)
        await _models(house, world, closed)
        await house.in_force()
        try:
            yield sweep
        finally:
            proxy.calm()


async def _keys(house: House, world: World, sweep: Sweep) -> None:
    """Rich, without any money, with enough for the cheap model; served without the store in any
    case, from leases, and not at all.
    """
    for name, amount, outage in (
        ("app", "1000", "bounded"),
        ("poor", "0.000001", "bounded"),
        ("small", "0.0005", "bounded"),
        ("open", "1000", "open"),
        ("leased", "1000", "bounded"),
        ("strict", "1000", "strict"),
        ("lab", "1000", "bounded"),
    ):
        key = world.key
        if name != "app":
            key = await house.make("keys", team_id=world.squad["id"], name=name)
        sweep.secrets[name] = key["secret"]
        made = await house.make(
            "budgets", scope={"key": key["id"]}, amount=amount, period="month", outage=outage
        )
        sweep.budgets[key["id"]] = made["id"]
        if name == "lab":
            await _trial(house, world, key["id"])
        if name == "leased":
            sweep.leased = made["id"]
        if name == "small":
            await house.policy(
                name="cheaper",
                scope={"key": key["id"]},
                match={"models": ["chat"]},
                budget={"on_exhausted": {"degrade_to": "cheap"}},
            )
    await house.make("limits", scope={"key": world.key["id"]}, concurrent_requests=2)


async def _trial(house: House, world: World, payer: str) -> None:
    """Requests for one model go to another one as well, and this key pays."""
    shadow = {"model": "aside", "percent": 100, "payer": {"key": payer}}
    await house.policy(
        name="trial",
        scope={"tenant": world.tenant["id"]},
        match={"models": ["shadowed"]},
        experiment={"name": "aside", "shadow": shadow},
    )


async def _models(house: House, world: World, closed: str) -> None:
    """One that no backend can be reached for, a cheap one, one whose answers are kept, and one of
    which a slow answer is asked for twice.
    """
    unreached = await house.make(
        "backends", name="closed", base_url=closed, dialect="openai", region="eu-central",
        jurisdictions=["DE"], placement="cloud",
    )  # fmt: skip
    there = [backend["id"] for backend in world.backends]
    for name, backends, price in (
        ("dead", [unreached["id"]], "1"),
        ("cheap", there, "0.01"),
        ("kept", there, "1"),
        ("hedged", there, "1"),
        ("shadowed", there, "1"),
        ("aside", there[1:], "1"),
    ):
        targets = [{"upstream_model": "m", "weight": 1, "backend_id": one} for one in backends]
        await house.make(
            "models", name=name, capabilities=["chat"], context_window=8192,
            max_output_tokens=512, targets=targets,
        )  # fmt: skip
        for meter in ("input", "output"):
            await house.make(
                "prices", book="charge", model=name, meter=meter, amount_per_million=price,
                currency="USD", effective_from="2026-01-01T00:00:00Z",
            )  # fmt: skip
    await house.policy(
        name="hedged",
        scope={"tenant": world.tenant["id"]},
        match={"models": ["hedged"]},
        retries={"hedge_after_ms": 20, "hedge_percent": 100},
    )
    await house.policy(
        name="kept",
        scope={"tenant": world.tenant["id"]},
        match={"models": ["kept"]},
        idempotency={"store_answers": "on", "keep_seconds": 600},
    )
