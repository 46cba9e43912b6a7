"""A model is reached by the exact bytes of its path; what is spelt otherwise, or goes wrong at the
door, is answered in OpenAI's envelope like anything else.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.app.data import data_app
from gateway.dataplane.endpoints import INFERENCE
from tests.house import House, open_house
from tests.integration.test_routes import METHODS
from tests.running import run

Answer = tuple[int, dict[str, str], Any]


async def ask(house: House, method: str, path: str, *headers: tuple[bytes, bytes]) -> Answer:
    """What the application answers to one request whose path arrived as these characters."""
    sent: list[Any] = []
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
        "method": method,
        "path": path.replace("%69", "i"),
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), *headers],
        "state": {},
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await data_app(house.data, asyncio.Event())(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, json.loads(body) if body else None


def test_a_door_refuses_every_method_but_post(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with open_house(tmp_path, store_url) as house:
            for path in INFERENCE:
                for method in METHODS:
                    status, headers, body = await ask(house, method, path)
                    if method == "POST":
                        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
                        continue
                    assert (status, headers["allow"]) == (405, "POST"), method
                    assert body["error"]["code"] == "method_not_allowed"
                    assert headers["x-request-id"].startswith("req_")

    run(scenario())


def test_another_spelling_of_a_door_is_no_door(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with open_house(tmp_path, store_url) as house:
            for path in INFERENCE:
                for spelt in (path + "/", path.replace("i", "%69"), path + "/extra", path.upper()):
                    status, _, body = await ask(house, "POST", spelt)
                    assert (status, body["error"]["code"]) == (404, "not_found"), spelt

    run(scenario())


def test_a_fault_at_the_door_is_answered_and_logged(
    tmp_path: Path, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No server lets such a length through; Python refuses to read it as a number."""

    async def scenario() -> Answer:
        async with open_house(tmp_path, store_url) as house:
            length = (b"content-length", b"9" * 5000)
            return await ask(house, "POST", "/v1/chat/completions", length)

    status, _, body = run(scenario())

    assert (status, body["error"]["type"]) == (500, "server_error")
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]
