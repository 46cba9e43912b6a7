"""Where requests go: residency that fails closed, ceilings, failover before the first byte,
breaker.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway import clock
from gateway.stores.redis import workers
from gateway.stores.redis.channel import Channels
from policies.latency import bucket_of
from tests.house import House, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
EU: dict[str, Any] = {"name": "eu", "region": "eu-central", "jurisdictions": ["DE"]}
US: dict[str, Any] = {"name": "us", "region": "us-east", "jurisdictions": ["US"]}


async def eu_only(house: House, team_id: str) -> None:
    await house.policy(name="eu", scope={"team": team_id}, require={"residency": ["EU"]})
    await house.in_force()


def test_an_eu_only_team_is_refused_rather_than_served_from_elsewhere(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as us,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            dead = {"base_url": "http://127.0.0.1:9/v1"}
            world = await furnish(house, EU | dead, US | {"base_url": us.base_url})
            await eu_only(house, world.squad["id"])
            for _ in range(30):
                answer = await house.ask(world.secret, model="chat", messages=HELLO)
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "no_backend"
            assert us.book == []
            assert us.accepted == 0  # not even a connection

    run(scenario())


def test_an_eu_backend_that_goes_down_under_two_hundred_requests_sends_no_byte_abroad(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as us,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            async with ScriptedBackend() as eu:
                world = await furnish(
                    house, EU | {"base_url": eu.base_url}, US | {"base_url": us.base_url}
                )
                await eu_only(house, world.squad["id"])
                before = await asked(house, world.secret, 20)
                under_way = asyncio.create_task(asked(house, world.secret, 200, endless=True))
                while len(eu.book) < 120:
                    await asyncio.sleep(0.01)
            during = await under_way
            after = await asked(house, world.secret, 50)

            assert before == {"200": 20}
            assert during.total() == 200
            assert set(during) <= {"200 upstream_error", "502 upstream_error", "503 no_backend"}
            assert after == {"503 no_backend": 50}
            assert us.book == []
            assert us.accepted == 0
            figure(
                f"before {dict(before)}, while it goes down {dict(during)}, after {dict(after)};"
                f" requests at the US backend: {len(us.book)}, connections: {us.accepted}"
            )

    run(scenario())


async def asked(house: House, key: str, requests: int, *, endless: bool = False) -> Counter[str]:
    """So many at once, every second one streamed: their statuses, with the error's code.

    Endless ones wait for a plain answer or for a stream's fourth event.
    """

    async def one(number: int) -> str:
        stream = bool(number % 2)
        script = 'script:{"stall_after_chunks": 3}' if stream else 'script:{"silent": true}'
        messages = [{"role": "user", "content": script if endless else "hello there"}]
        answer = await house.ask(key, model="chat", messages=messages, stream=stream)
        found = re.search(r'"code":"(\w+)"', answer.text)
        return f"{answer.status_code} {found[1]}" if found else str(answer.status_code)

    return Counter(await asyncio.gather(*(one(number) for number in range(requests))))


def test_without_any_eu_backend_the_refusal_says_residency(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as us,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            unlabelled = {"name": "x", "jurisdictions": [], "base_url": us.base_url}
            world = await furnish(house, US | {"base_url": us.base_url}, unlabelled)
            await eu_only(house, world.squad["id"])
            answer = await house.ask(world.secret, model="chat", messages=HELLO)
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "residency_violation"
            assert us.accepted == 0

    run(scenario())


def test_a_backend_that_cannot_be_reached_or_refuses_is_passed_over_before_the_first_byte(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as first,
            ScriptedBackend() as second,
            open_house(tmp_path, store_url) as house,
        ):
            world = await furnish(
                house,
                EU | {"base_url": first.base_url},
                US | {"base_url": second.base_url},
            )
            for backend, amount in zip(world.backends, ("1", "9"), strict=True):
                for meter in ("input", "output"):
                    await house.make(
                        "prices", book="cost", backend_id=backend["id"], upstream_model="m",
                        meter=meter, amount_per_million=amount, currency="USD",
                        effective_from="2026-01-01T00:00:00Z",
                    )  # fmt: skip
            await house.in_force()
            first.script = Script(status=503)
            answer = await house.ask(world.secret, model="chat", messages=HELLO)
            assert answer.status_code == 200
            assert answer.headers["x-meterhouse-backend-region"] == "us-east"
            assert [len(first.book), len(second.book)] == [1, 1]
            assert first.book[0].request_id == second.book[0].request_id

            first.script = Script(status=500)
            answer = await house.ask(world.secret, model="chat", messages=HELLO)
            assert answer.status_code == 502  # it may have done the work
            assert len(second.book) == 1

    run(scenario())


def test_retries_stay_within_their_budget_when_a_backend_refuses_everything(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as first,
            ScriptedBackend() as second,
            open_house(tmp_path, store_url) as house,
        ):
            first.script = second.script = Script(status=429)
            world = await furnish(
                house, EU | {"base_url": first.base_url}, US | {"base_url": second.base_url}
            )
            for _ in range(40):
                answer = await house.ask(world.secret, model="chat", messages=HELLO)
                assert answer.json()["error"]["code"] == "overloaded"
            attempts = len(first.book) + len(second.book)
            assert attempts <= 40 + 3 * 3 + 4  # a tenth, at least three in each second

    run(scenario())


def test_a_price_ceiling_and_an_unpriced_model_refuse_by_name(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.make(
                "models",
                name="free",
                capabilities=["chat"],
                targets=[{"backend_id": world.backends[0]["id"], "upstream_model": "other"}],
            )
            await house.policy(
                name="cheap",
                scope={"key": world.key["id"]},
                match={"models": ["chat"]},
                cost={"max_output_per_million": "14.99"},
            )
            await house.in_force()
            dear = await house.ask(world.secret, model="chat", messages=HELLO)
            unpriced = await house.ask(world.secret, model="free", messages=HELLO)
            assert dear.status_code == unpriced.status_code == 403
            assert dear.json()["error"]["code"] == "cost_ceiling_exceeded"
            assert unpriced.json()["error"]["code"] == "unpriced_model"
            assert backend.book == []

    run(scenario())


def test_a_key_restricted_to_models_sees_and_uses_only_those(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            narrow = await house.make(
                "keys",
                team_id=world.squad["id"],
                name="narrow",
                scopes={"models": ["other"], "cidrs": None},
            )
            await house.in_force()
            answer = await house.ask(narrow["secret"], model="chat", messages=HELLO)
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "model_not_allowed"

    run(scenario())


def test_explain_says_which_backends_may_serve_and_why_the_others_may_not(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            url = {"base_url": backend.base_url}
            world = await furnish(house, EU | url, US | url)
            await eu_only(house, world.squad["id"])
            asked = {
                "key_id": world.key["id"],
                "model": "chat",
                "input_tokens": 100,
                "max_tokens": 100,
                "stream": False,
            }
            answer = await house.admin.post("/policies/explain", json=asked)
            assert answer.status_code == 200, answer.text
            eligible = {c["backend_id"]: c["eligible"] for c in answer.json()["candidates"]}
            assert eligible == {world.backends[0]["id"]: True, world.backends[1]["id"]: False}
            assert backend.book == []

    run(scenario())


async def told_by_a_worker(house: House, backend_id: str, **seen: Any) -> None:
    """As another worker would of one backend, and stay fresh."""
    given: dict[str, Any] = {"breaker": "closed", "ttft": {}, "tpot": {}, "total": {}}
    given |= {"in_flight": 1, "in_flight_tokens": 9} | seen
    report = workers.Report(
        worker=backend_id,
        version="0",
        at_us=clock.now_us() + 3_600_000_000,
        started_us=0,
        revision=1,
        in_flight=0,
        unsettled=0,
        backends=(workers.BackendReport(backend_id=backend_id, upstream_model="m", **given),),
    )
    await workers.publish(channels_of(house), report)


def channels_of(house: House) -> Channels:
    channels = house.opened.deps.store
    assert channels is not None
    return channels


def test_explain_sees_what_the_workers_see(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            url = {"base_url": backend.base_url}
            world = await furnish(house, EU | url, US | url)
            slo = {"ttft_p95_ms": 50, "on_breach": "refuse"}
            await house.policy(name="quick", scope={"team": world.squad["id"]}, slo=slo)
            await house.policy(
                name="lately",
                scope={"team": world.squad["id"]},
                slo={"total_p95_ms": 60_000, "percentile": 50, "window_s": 30},
            )
            await house.in_force()
            body = {"key_id": world.key["id"], "model": "chat"}
            eu, us = (each["id"] for each in world.backends)

            while True:  # until the worker of this house has spoken for the first time
                told = (await house.admin.post("/policies/explain", json=body)).json()
                if told["live"]["known"]:
                    break
                await asyncio.sleep(0.01)
            assert told["decision"] == "serve"
            assert [each["breaker"] for each in told["candidates"]] == [None, None]

            await told_by_a_worker(house, eu, ttft={bucket_of(400_000): 40})
            await told_by_a_worker(house, us, breaker="open")
            told = (await house.admin.post("/policies/explain", json=body)).json()
            slow, dead = told["candidates"]
            assert told["decision"] == "refuse"
            assert (slow["samples"], slow["in_flight"]) == (40, 1)
            assert slow["reasons"][0].startswith("slo: p95 of TTFT is 398 ms")
            assert dead["reasons"] == ["unavailable: the circuit breaker is open after failures"]
            assert (slow["breaker"], dead["breaker"]) == ("closed", "open")
            assert [each["trial"] for each in told["candidates"]] == [None, None]
            await told_by_a_worker(house, us, breaker="half_open")
            told = (await house.admin.post("/policies/explain", json=body)).json()
            _, tried = told["candidates"]
            assert (tried["eligible"], tried["breaker"]) == (True, "half_open")
            assert tried["trial"].startswith("half open: one trial at a time")

            # The worker of this house sees no other's counts yet: it serves, and tells of itself
            # what policies ask for, by their windows.
            answer = await house.ask(world.secret, model="chat", messages=HELLO)
            assert answer.status_code == 200, answer.text
            watched: set[str] = set()
            while watched != {"total_p50_30s"}:
                await asyncio.sleep(0.01)
                reports = await workers.read(channels_of(house), clock.now_us())
                seats = [each for report in reports for each in report.backends]
                watched = {view for each in seats for view in each.others}

    run(scenario())


def test_a_backend_that_asks_to_be_left_alone_is_and_so_are_those_with_its_account(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as limited,
            ScriptedBackend() as spare,
            open_house(tmp_path, store_url) as house,
        ):
            twin = {"base_url": limited.base_url}
            world = await furnish(house, EU | twin, US | twin, {"base_url": spare.base_url})
            limited.script = Script(status=429, retry_after="20")
            for _ in range(12):
                answer = await house.ask(world.secret, model="chat", messages=HELLO)
                assert answer.status_code == 200
            assert len(limited.book) == 1, "asked once, and its twin not at all"
            assert len(spare.book) == 12

            spare.script = Script(status=429, retry_after="60")
            assert (await house.ask(world.secret, model="chat", messages=HELLO)).status_code == 503
            answer = await house.ask(world.secret, model="chat", messages=HELLO)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
            # 20 s and up to a second, and up to half as much again: callers come back one by one
            assert 1 <= int(answer.headers["retry-after"]) <= 33, "when the first is back"
            assert (len(limited.book), len(spare.book)) == (1, 13)

    run(scenario())
