"""What a client asked for and what it got."""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

import httpx

from gateway import ids

REPLIED_WITHIN_S = 60
MOST_REPEATS = 200
_UNSURE = frozenset({0, 500, 503})  # 500: the request was cancelled under it
_KEY = re.compile(r"again_\w{26}")

# What a request does, by name; `dead` has no backend that can be reached.
SCRIPTS: dict[str, dict[str, Any]] = {
    "plain": {"tokens": 6},
    "stream": {"tokens": 8, "chunk_delay_ms": 2},
    "long": {"tokens": 420, "chunk_delay_ms": 1},
    "lasting": {"tokens": 40, "chunk_delay_ms": 50},
    "counted": {"tokens": 6, "chunk_delay_ms": 1, "usage": "missing"},
    "retried": {"tokens": 6},
    "hedged": {"tokens": 6},
    "hedged stream": {"tokens": 8, "chunk_delay_ms": 2},
    "enduring": {"tokens": 240, "chunk_delay_ms": 50},  # through a rebuild of the counters
    "shadowed": {"tokens": 8, "chunk_delay_ms": 2},  # and another key pays for it once more
    "dead": {"tokens": 1},
    "sliced": {"tokens": 60, "chunk_delay_ms": 2},  # its hold grows with it
    "keyed": {"tokens": 6},  # with an idempotency key; the client asks until it is told
    "kept": {"tokens": 6},  # the same, and asked once more: its answer is stored
}
STREAMS = frozenset(
    {
        "stream", "long", "lasting", "enduring", "counted", "sliced", "hedged stream", "shadowed"
    }
)  # fmt: skip
# Kinds with a model of their own.
MODELS = frozenset({"dead", "sliced", "kept", "hedged", "shadowed"})
_TOLD_APART = frozenset({"retried", "hedged", "hedged stream"})  # what a backend does is told there


@dataclass(frozen=True)
class Reply:
    """`whole`: the answer came to its own end. `words`: how many of them came."""

    status: int  # 0: none
    whole: bool
    words: int
    error: str = ""
    request_id: str = ""


def body(kind: str, model: str = "chat") -> dict[str, Any]:
    script = {} if kind in _TOLD_APART else {"script": SCRIPTS[kind]}
    text = "tell me a story" + (f" script:{json.dumps(script['script'])}" if script else "")
    return {
        "model": named if (named := kind.partition(" ")[0]) in MODELS else model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 500,
        "stream": kind in STREAMS,
    }


async def ask(client: httpx.AsyncClient, kind: str, model: str = "chat") -> Reply:
    if kind in {"keyed", "kept"}:
        return await _keyed(client, kind, model)
    try:
        if kind in STREAMS:
            return await _streamed(client, kind, model)
        answer = await client.post("/v1/chat/completions", json=body(kind, model))
    except httpx.HTTPError as fault:
        return Reply(0, False, 0, type(fault).__name__)
    return _plain(answer)


def _plain(answer: httpx.Response) -> Reply:
    if answer.status_code != 200:
        return Reply(answer.status_code, False, 0, _code(answer))
    said = answer.json()["choices"][0]["message"]["content"]
    told = answer.headers
    request_id = told.get("x-meterhouse-original-request", told["x-request-id"])
    return Reply(200, True, len(said.split()), request_id=request_id)


async def _keyed(client: httpx.AsyncClient, kind: str, model: str) -> Reply:
    """As an SDK does it: the same key and body again, for as long as nobody knows the end. A stored
    answer is the same as the first one, or is not there.
    """
    key = ids.new("again")
    asked = body(kind, model)
    asked["messages"][0]["content"] += f" {key}"
    reply = await _until_told(client, key, asked)
    if kind == "kept" and reply.whole:
        again = await _until_told(client, key, asked)
        if again != reply and again.error != "idempotency_finished":
            return Reply(0, False, 0, f"another answer: {again} after {reply}")
    return reply


async def _until_told(client: httpx.AsyncClient, key: str, asked: dict[str, Any]) -> Reply:
    reply = Reply(0, False, 0, "never answered")
    for _ in range(MOST_REPEATS):
        try:
            reply = _plain(
                await client.post(
                    "/v1/chat/completions", json=asked, headers={"idempotency-key": key}
                )
            )
        except httpx.HTTPError as fault:
            reply = Reply(0, False, 0, type(fault).__name__)
        if reply.status not in _UNSURE and reply.error != "idempotency_in_flight":
            break
        await asyncio.sleep(0.1)
    return reply


def keys_of(text: str) -> list[str]:
    """The idempotency keys that a request's text names."""
    return _KEY.findall(text)


async def _streamed(client: httpx.AsyncClient, kind: str, model: str) -> Reply:
    words, whole, error = 0, False, ""
    status, request_id = 0, ""
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body(kind, model)) as answer:
            status, request_id = answer.status_code, answer.headers.get("x-request-id", "")
            if status != 200:
                await answer.aread()
                return Reply(status, False, 0, _code(answer))
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    whole = True
                elif line.startswith("data: "):
                    event = json.loads(line[6:])
                    error = event["error"]["code"] if "error" in event else error
                    words += sum(bool(_said(choice)) for choice in event.get("choices", ()))
    except httpx.HTTPError as fault:
        error = type(fault).__name__
    return Reply(status, whole, words, error, request_id)


def _code(answer: httpx.Response) -> str:
    """The refusal's; the server has words of its own for a request that was cancelled in it."""
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return answer.text
    return str(answer.json()["error"]["code"])


def _said(choice: dict[str, Any]) -> str:
    return choice.get("delta", {}).get("content") or ""
