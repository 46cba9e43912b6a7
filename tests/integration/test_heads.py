"""What a request's head may say: every header that we read at most once."""

from pathlib import Path

import httpx
import pytest

from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
Headers = list[tuple[str, str]]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/usage", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ([("authorization", "Bearer bad"), ("authorization", "Bearer {secret}")], "authorization"),
        ([("authorization", "Bearer {secret}"), ("Authorization", "Basic x")], "authorization"),
        ([("x-api-key", "bad"), ("x-api-key", "{secret}")], "x-api-key"),
        ([("x-api-key", "{secret}"), ("x-api-key", "{secret}")], "x-api-key"),
    ],
)
def test_a_credential_that_is_there_twice_is_refused_whichever_is_right(
    tmp_path: Path, store_url: str, path: str, headers: Headers, named: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            sent = [(name, value.format(secret=world.secret)) for name, value in headers]
            body = CHAT if path.endswith("completions") else None
            answer = await house.client.request(
                "POST" if body else "GET", path, json=body, headers=sent
            )
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["param"] == named
            assert backend.book == []

    run(scenario())


def test_no_other_header_that_we_read_counts_by_its_place(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})

            async def ask(*headers: tuple[str, str]) -> httpx.Response:
                key = ("authorization", f"Bearer {world.secret}")
                return await house.client.post(
                    "/v1/chat/completions", json=CHAT, headers=[key, *headers]
                )

            tags = ("x-meterhouse-tags", "app=desk")
            encoding = ("content-encoding", "identity")
            trace = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
            for twice in ((tags, tags), (encoding, ("content-encoding", "gzip"))):
                answer = await ask(*twice)
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, twice[0][0])
            assert (await ask(("x-meterhouse-tags", "app=a,app=b"))).status_code == 400
            assert (await ask(tags, encoding, trace)).status_code == 200
            assert (await ask(trace, trace)).status_code == 200
            assert len(backend.book) == 2

    run(scenario())
