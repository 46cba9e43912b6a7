"""Every refusal of CONTRACT.md, seen through the official OpenAI SDK, as its own exception type."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO: Any = [{"role": "user", "content": "hello there"}]


def sdk(house: House, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0)


async def refused(house: House, key: str, **body: Any) -> openai.APIStatusError:
    """The exception a chat with this key ends in."""
    async with sdk(house, key) as client:
        request = {"model": "chat", "messages": HELLO} | body
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(**request)
    return caught.value


def test_the_sdk_sees_its_own_exception_for_every_kind_of_refusal(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            cases = [
                ("mh_nonsense", {}, openai.AuthenticationError, "invalid_api_key"),
                (world.secret[:-1] + "x", {}, openai.AuthenticationError, "invalid_api_key"),
                (world.secret, {"model": "nope"}, openai.NotFoundError, "model_not_found"),
                (world.secret, {"messages": []}, openai.BadRequestError, "invalid_request"),
                (world.secret, {"max_tokens": "x"}, openai.BadRequestError, "invalid_request"),
                (world.secret, {"max_tokens": 0}, openai.BadRequestError, "invalid_request"),
                (world.secret, {"n": 1000}, openai.BadRequestError, "invalid_request"),
            ]
            for key, body, kind, code in cases:
                fault = await refused(house, key, **body)
                assert type(fault) is kind, (body, fault)
                assert fault.code == code
                assert fault.request_id
            assert (await refused(house, world.secret, max_tokens="x")).param == "max_tokens"
            assert backend.book == []

    run(scenario())


def test_backend_faults_become_typed_errors_that_sdks_do_not_repeat(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            cases = [
                (Script(status=500), 502, "upstream_error", "false"),
                (Script(status=401), 502, "upstream_error", "false"),
                (Script(body="<html>", content_type="text/html"), 502, "upstream_error", "false"),
                (Script(cut_at_byte=40), 502, "upstream_error", "false"),
                (Script(raw="garbage\r\n\r\n"), 502, "upstream_error", "false"),
                (Script(status=429), 503, "overloaded", None),
                (Script(status=503), 503, "overloaded", None),
                (Script(status=400), 400, "invalid_request", None),
            ]
            for script, status, code, retry in cases:
                backend.script = script
                fault = await refused(house, world.secret)
                assert (fault.status_code, fault.code) == (status, code), script
                assert fault.response.headers.get("x-should-retry") == retry
                backend.script = Script()  # a success in between keeps the breaker closed
                assert (await house.ask(world.secret, model="chat", messages=HELLO)).is_success

    run(scenario())


def test_a_backend_that_stays_silent_is_given_up_in_time(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(
                house,
                {
                    "base_url": backend.base_url,
                    "first_byte_timeout_ms": 200,
                    "idle_timeout_ms": 200,
                },
            )
            backend.script = Script(silent=True)
            fault = await refused(house, world.secret)
            assert (fault.status_code, fault.code) == (504, "upstream_timeout")
            assert fault.response.headers["x-should-retry"] == "false"

            backend.script = Script(stall_after_chunks=3)
            async with sdk(house, world.secret) as client:
                stream = await client.chat.completions.create(
                    model="chat", messages=HELLO, stream=True
                )
                with pytest.raises(openai.APIError) as caught:
                    async for _ in stream:
                        pass
            assert caught.value.code == "upstream_timeout"

    run(scenario())


def test_nobody_home_is_503_within_50_ms(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": "http://127.0.0.1:9/v1"})
            await refused(house, world.secret)
            took = []
            for _ in range(5):
                began = asyncio.get_running_loop().time()
                answer = await house.ask(world.secret, model="chat", messages=HELLO)
                took.append(asyncio.get_running_loop().time() - began)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "no_backend"
            assert answer.headers["retry-after"]
            assert min(took) < 0.5  # a busy machine spoils one or another

    run(scenario())


def test_bodies_routes_and_methods_that_do_not_fit_are_told_apart(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, MAX_BODY_BYTES="2000") as house,
        ):
            world = await furnish(house, {"base_url": backend.base_url})
            headers = {"authorization": f"Bearer {world.secret}"}
            client, path = house.client, "/v1/chat/completions"

            async def status(**given: Any) -> tuple[int, str]:
                given = {"method": "POST", "url": path, "headers": headers} | given
                answer = await client.request(**given)
                error = answer.json()["error"]
                assert set(error) == {"message", "type", "param", "code"}
                return answer.status_code, error["code"]

            async def dribble() -> Any:
                for _ in range(30):
                    yield b" " * 100

            assert await status(content=b"{") == (400, "invalid_request")
            assert await status(content=b"x" * 3000) == (413, "request_too_large")
            assert await status(content=dribble()) == (413, "request_too_large")
            assert await status(method="GET") == (405, "method_not_allowed")
            assert await status(url=path + "/") == (404, "not_found")
            assert await status(url="/v1/nothing") == (404, "not_found")
            assert await status(url="/") == (404, "not_found")
            assert await status(method="POST", url="/v1/models") == (405, "method_not_allowed")
            assert await status(
                json={"model": "chat", "messages": HELLO},
                headers=headers | {"x-meterhouse-tags": "Bad Name=1"},
            ) == (400, "invalid_request")
            assert await status(content=b"{}", headers=headers | {"content-encoding": "gzip"}) == (
                400,
                "invalid_request",
            )

    run(scenario())


async def _revoked(house: House, world: World) -> None:
    answer = await house.admin.post(f"/keys/{world.key['id']}/revoke", json={})
    assert answer.status_code in (200, 201, 204), answer.text


def test_a_revoked_key_stops_working_within_a_second(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            assert (await house.ask(world.secret, model="chat", messages=HELLO)).status_code == 200
            await _revoked(house, world)
            began = asyncio.get_running_loop().time()
            while True:
                answer = await house.ask(world.secret, model="chat", messages=HELLO)
                if answer.status_code == 401:
                    break
                await asyncio.sleep(0.01)
            # Half a second by itself, if no word of it comes; the rest is for a busy machine.
            assert asyncio.get_running_loop().time() - began < 10

    run(scenario())
