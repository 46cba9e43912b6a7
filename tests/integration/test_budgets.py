"""Hard budgets under concurrency: what is admitted at once, and that the cap holds at every
write.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis.asyncio

from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
NANOS = 10**9
# Who is not answered in time gets a 503, and what was placed for him is released: on a busy
# machine 200 at once may take longer than anybody would wait.
PATIENT = {"STORE_TIMEOUT_MS": "30000"}
_CAUGHT_UP = "caught-up"


class Watch:
    """Every write that a script makes to a budget account, as the server executed it: the sum of
    posted and held after each one. What workers have on lease besides is looked at apart: `most`
    has it too.
    """

    def __init__(self, url: str, budget_id: str) -> None:
        self._url = url
        self._pattern = re.compile(rf"mh:\{{\w+\}}:acct:{budget_id}:")
        self._client = redis.asyncio.Redis.from_url(url)
        self.balance: Counter[str] = Counter()
        self.peak = 0
        self.most = 0
        self._leased = 0
        self.writes = 0

    async def __aenter__(self) -> Self:
        self._ready = asyncio.Event()
        self._task = asyncio.create_task(self._listen())
        await self._ready.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def caught_up(self) -> None:
        """Returns once every write of before was seen: the server tells of commands in order."""
        self._ready.clear()
        async with redis.asyncio.Redis.from_url(self._url) as other:
            await other.echo(_CAUGHT_UP)
        await self._ready.wait()

    async def _listen(self) -> None:
        async with self._client.monitor() as monitor:
            self._ready.set()
            async for command in monitor.listen():
                words = command["command"].split(" ")
                if words == ["ECHO", _CAUGHT_UP]:
                    self._ready.set()
                if words[0] != "HINCRBY" or not self._pattern.match(words[1]):
                    continue
                if words[2] == "leased":
                    self._leased += int(words[3])
                elif words[2] in {"posted", "held"}:
                    self.balance[words[2]] += int(words[3])
                    self.writes += 1
                self.peak = max(self.peak, sum(self.balance.values()))
                self.most = max(self.most, sum(self.balance.values()) + self._leased)


async def _world(house: House, backend: ScriptedBackend, *, clamp: bool) -> tuple[World, Any]:
    """Worst case exactly 0.75: no charge for input, 1,000 output tokens at 750 per million."""
    world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "750"))
    budget = await house.make(
        "budgets", scope={"team": world.team["id"]}, amount="10.00", period="month"
    )
    await house.policy(
        name="budget",
        scope={"tenant": world.tenant["id"]},
        budget={"hold": "full", "clamp": "on" if clamp else "off", "least_output": 64},
    )
    await house.in_force()
    return world, budget


async def _storm(house: House, world: World, backend: ScriptedBackend) -> list[Any]:
    """200 requests at once against a backend that answers nothing until all are decided; then each
    answer costs 0.05 (67 tokens, rounded to 0.05025)."""
    backend.script = Script(tokens=67)
    backend.answering.clear()
    asking = [
        asyncio.create_task(house.ask(world.secret, model="chat", messages=HELLO, max_tokens=1000))
        for _ in range(200)
    ]
    while len(backend.book) + sum(one.done() for one in asking) < 200:
        await asyncio.sleep(0.01)
    backend.answering.set()
    answers = await asyncio.gather(*asking)
    await house.settled()
    while house.data.plane.holds.busy or house.data.plane._settler.waiting:
        await asyncio.sleep(0.005)
    return answers


def test_with_clamp_off_thirteen_of_two_hundred_are_admitted_at_once(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, **PATIENT) as house,
        ):
            world, budget = await _world(house, backend, clamp=False)
            async with Watch(store_url, budget["id"]) as watch:
                answers = await _storm(house, world, backend)
                assert Counter(a.status_code for a in answers) == {200: 13, 429: 187}
                refused = next(a for a in answers if a.status_code == 429)
                assert refused.json()["error"]["code"] == "insufficient_quota"
                assert refused.headers["x-should-retry"] == "false"
                assert refused.headers["retry-after"] == "2"  # only holds are in its way
                assert "retry when they have ended" in refused.json()["error"]["message"]
                assert len(backend.book) == 13
                after = await house.look(f"budgets/{budget['id']}")
                assert (after["spent"], after["held"]) == ("0.65325", "0")
                await watch.caught_up()
            assert watch.writes == 3 * 13  # held up, held down, posted
            assert watch.peak == 975 * NANOS // 100
            figure(
                f"200 at once, 0.75 each, budget 10.00: {len(backend.book)} admitted; held + posted"
                f" at most {watch.peak / NANOS} over {watch.writes} writes; spent {after['spent']}"
            )

    run(scenario())


def test_with_clamp_on_a_fourteenth_gets_what_is_left(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, **PATIENT) as house,
        ):
            world, budget = await _world(house, backend, clamp=True)
            async with Watch(store_url, budget["id"]) as watch:
                answers = await _storm(house, world, backend)
                assert Counter(a.status_code for a in answers) == {200: 14, 429: 186}
                clamped = [a for a in answers if "x-meterhouse-max-tokens" in a.headers]
                assert [a.headers["x-meterhouse-max-tokens"] for a in clamped] == ["333"]
                after = await house.look(f"budgets/{budget['id']}")
                assert (after["spent"], after["held"]) == ("0.7035", "0")
                await watch.caught_up()
            assert watch.writes == 3 * 14
            assert watch.peak <= 10 * NANOS
            figure(
                f"200 at once, 0.75 each, budget 10.00: {len(backend.book)} admitted, one of them"
                f" clamped to 333 tokens; held + posted at most {watch.peak / NANOS} over"
                f" {watch.writes} writes; spent {after['spent']}"
            )

    run(scenario())


def test_a_budget_of_123456_789012345_is_held_spent_and_shown_to_the_last_nano(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            # 1,415 tokens at 87.248614143 each are the whole of it.
            world = await furnish(
                house, {"base_url": backend.base_url}, charge=("0", "87248614.143")
            )
            amount = "123456.789012345"
            budget = await house.make(
                "budgets", scope={"tenant": world.tenant["id"]}, amount=amount, period="total"
            )
            await house.in_force()
            backend.script = Script(tokens=1415)
            backend.answering.clear()
            ask = {"model": "chat", "messages": HELLO, "max_tokens": 1415}
            asking = asyncio.create_task(house.ask(world.secret, **ask))
            while not backend.book:
                await asyncio.sleep(0.01)
            during = await house.look(f"budgets/{budget['id']}")
            backend.answering.set()
            assert (await asking).status_code == 200
            await house.settled()
            after = await house.look(f"budgets/{budget['id']}")
            refused = await house.ask(world.secret, **ask | {"max_tokens": 1})

            assert (during["spent"], during["held"], during["remaining"]) == ("0", amount, "0")
            assert (after["spent"], after["held"], after["remaining"]) == (amount, "0", "0")
            assert refused.json()["error"]["code"] == "insufficient_quota"
            figure(f"held {during['held']}, then spent {after['spent']} of {amount}")

    run(scenario())


def test_every_level_is_held_or_none(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))
            scopes = [
                {"tenant": world.tenant["id"]},
                {"team": world.team["id"]},
                {"team": world.squad["id"]},
                {"key": world.key["id"]},
            ]
            amounts = ["9", "8", "7", "0.00001"]
            for scope, amount in zip(scopes, amounts, strict=True):
                await house.make("budgets", scope=scope, amount=amount, period="month")
            await house.in_force()
            answer = await house.ask(world.secret, model="chat", messages=HELLO, max_tokens=100)
            assert answer.status_code == 429
            assert "key app" in answer.json()["error"]["message"]
            budgets = (await house.look("budgets"))["items"]
            assert [(b["spent"], b["held"]) for b in budgets] == [("0", "0")] * 4
            assert backend.book == []

    run(scenario())


def test_rate_and_concurrency_limits_refuse_with_a_time_to_come_back(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.make(
                "limits",
                scope={"team": world.squad["id"]},
                requests_per_minute=12,
                concurrent_requests=50,
            )
            await house.in_force()
            answers = [
                await house.ask(world.secret, model="chat", messages=HELLO) for _ in range(4)
            ]
            assert [a.status_code for a in answers] == [200, 200, 429, 429]
            assert answers[0].headers["x-ratelimit-limit-requests"] == "12"
            assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"
            assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
            assert 1 <= int(answers[2].headers["retry-after"]) <= 5
            assert len(backend.book) == 2

    run(scenario())
