"""What policies require of a backend: classes of data, a context window, speed."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from gateway import clock
from policies.latency import MIN_SAMPLES
from policies.rank import LEARNT
from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.integration.test_decisions import kept
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]


async def under(house: House, world: World, **document: Any) -> None:
    await house.policy(**{"name": "p", "scope": {"key": world.key["id"]}} | document)
    await house.in_force()


async def ask(house: House, secret: str, **body: Any) -> httpx.Response:
    return await house.ask(secret, **{"model": "chat", "messages": HELLO} | body)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


async def colleague(house: House, world: World) -> str:
    """A key that no policy binds: its requests are measured as anybody's."""
    made = await house.make("keys", team_id=world.team["id"], name="colleague")
    await house.in_force()
    return str(made["secret"])


async def measured(house: House, world: World, number: int = 0) -> None:
    """Returns once the totals of a backend are known."""
    key = (world.backends[number]["id"], "m")
    backends = house.data.plane.backends
    while True:
        live = backends.live(clock.monotonic_us()).get(key)
        if live is not None and live.total_p95_us is not None:
            return
        await asyncio.sleep(0.01)


def test_data_of_a_class_only_goes_where_it_is_cleared(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as open_to_all,
            ScriptedBackend() as cleared,
            open_house(tmp_path, store_url) as house,
        ):
            world = await furnish(
                house,
                {"name": "a", "region": "a", "base_url": open_to_all.base_url},
                {
                    "name": "b",
                    "region": "b",
                    "base_url": cleared.base_url,
                    "data_classes": ["personal", "health"],
                },
            )
            await under(house, world, require={"data_classes": ["health"]})
            for _ in range(10):
                answer = await ask(house, world.secret)
                assert answer.headers["x-meterhouse-backend-region"] == "b"

            await under(house, world, name="q", require={"data_classes": ["payment"]})
            answer = await ask(house, world.secret)
            assert (answer.status_code, code(answer)) == (403, "model_not_allowed")
            assert "payment data (policy p, q)" in answer.json()["error"]["message"]
            assert (len(open_to_all.book), len(cleared.book)) == (0, 10)

    run(scenario())


def test_a_model_with_too_small_a_window_is_refused(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await under(house, world, require={"max_context": 8192})
            assert (await ask(house, world.secret)).status_code == 200

            await under(house, world, name="q", require={"max_context": 8193})
            answer = await ask(house, world.secret)
            assert (answer.status_code, code(answer)) == (400, "unsupported_capability")
            assert len(backend.book) == 1

    run(scenario())


def test_a_slow_backend_takes_one_request_at_a_time_where_a_policy_sheds(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            other = await colleague(house, world)
            backend.script = Script(delay_ms=40)
            await asyncio.gather(*(ask(house, other) for _ in range(MIN_SAMPLES)))
            await measured(house, world)
            await under(house, world, slo={"total_p95_ms": 10, "on_breach": "shed"})

            assert (await ask(house, world.secret)).status_code == 200
            backend.answering.clear()
            waiting = asyncio.create_task(ask(house, world.secret))
            while len(backend.book) < MIN_SAMPLES + 2:
                await asyncio.sleep(0.005)
            shed = await ask(house, world.secret)
            backend.answering.set()

            assert (await waiting).status_code == 200
            assert (shed.status_code, code(shed)) == (503, "overloaded")
            assert int(shed.headers["retry-after"]) >= 1
            assert (await ask(house, other)).status_code == 200

    run(scenario())


def test_a_policy_is_held_to_the_percentile_and_the_window_it_names(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            other = await colleague(house, world)
            for number in range(MIN_SAMPLES):
                backend.script = Script(delay_ms=700 if number % 4 == 0 else 0)
                assert (await ask(house, other)).status_code == 200
            await measured(house, world)

            slo = {"total_p95_ms": 600, "on_breach": "refuse"}
            await under(house, world, slo=slo | {"percentile": 60, "window_s": 40})
            backend.script = Script()
            assert (await ask(house, world.secret)).status_code == 200

            await under(house, world, name="q", slo=slo)
            answer = await ask(house, world.secret)
            assert (answer.status_code, code(answer)) == (503, "overloaded")
            assert "(policy p, q)" in answer.json()["error"]["message"]

    run(scenario())


def test_a_backend_nobody_knows_is_trusted_avoided_or_refused(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as known,
            ScriptedBackend() as unknown,
            open_house(tmp_path, store_url) as house,
        ):
            world = await furnish(
                house,
                {"name": "known", "placement": "on_prem", "base_url": known.base_url},
                {"name": "new", "placement": "cloud", "base_url": unknown.base_url},
            )
            await the_new_one_is_cheaper(house, world)
            other = await house.make("keys", team_id=world.team["id"], name="colleague")
            await house.policy(
                name="home", scope={"key": other["id"]}, require={"placements": ["on_prem"]}
            )
            keys = {}
            for doubt in ("allow", "avoid", "refuse"):
                keys[doubt] = await house.make("keys", team_id=world.squad["id"], name=doubt)
                await house.policy(
                    name=doubt,
                    scope={"key": keys[doubt]["id"]},
                    slo={"total_p95_ms": 60_000, "on_no_data": doubt},
                )
            await house.in_force()

            refused = await ask(house, keys["refuse"]["secret"])
            assert (refused.status_code, code(refused)) == (503, "overloaded")
            for _ in range(MIN_SAMPLES):
                assert (await ask(house, other["secret"])).status_code == 200
            await measured(house, world)

            came: dict[str, list[bool]] = {"refuse": [], "avoid": [], "allow": []}
            asked: list[str] = []
            for doubt, each in came.items():
                for _ in range(9):
                    before = len(unknown.book)
                    answer = await ask(house, keys[doubt]["secret"])
                    assert answer.status_code == 200
                    each.append(len(unknown.book) > before)
                    asked.append(answer.headers["x-request-id"])
            await ledger_rows(house)
            draws = [(await kept(house, one))[0].record.facts.draw for one in asked[9:18]]
            # One draw in sixteen is there to get to know it.
            learns = [draw & 0xFFFF >= 0x10000 - LEARNT for draw in draws]
            assert came == {"refuse": [False] * 9, "avoid": learns, "allow": [True] * 9}

    run(scenario())


async def the_new_one_is_cheaper(house: House, world: World) -> None:
    for backend, amount in zip(world.backends, ("9", "1"), strict=True):
        for meter in ("input", "output"):
            await house.make(
                "prices", book="cost", backend_id=backend["id"], upstream_model="m", meter=meter,
                amount_per_million=amount, currency="USD", effective_from="2026-01-01T00:00:00Z",
            )  # fmt: skip
