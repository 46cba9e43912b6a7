"""What a client asked for and what it got."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

REPLIED_WITHIN_S = 60

# What a request does, by name; `dead` has no backend that can be reached.
SCRIPTS: dict[str, dict[str, Any]] = {
    "plain": {"tokens": 6},
    "stream": {"tokens": 8, "chunk_delay_ms": 2},
    "long": {"tokens": 420, "chunk_delay_ms": 1},
    "lasting": {"tokens": 40, "chunk_delay_ms": 50},
    "counted": {"tokens": 6, "chunk_delay_ms": 1, "usage": "missing"},
    "retried": {"tokens": 6},
    "dead": {"tokens": 1},
}
STREAMS = frozenset({"stream", "long", "lasting", "counted"})


@dataclass(frozen=True)
class Reply:
    """`whole`: the answer came to its own end. `words`: how many of them came."""

    status: int  # 0: none
    whole: bool
    words: int
    error: str = ""


def body(kind: str, model: str = "chat") -> dict[str, Any]:
    script = {} if kind == "retried" else {"script": SCRIPTS[kind]}
    text = "tell me a story" + (f" script:{json.dumps(script['script'])}" if script else "")
    return {
        "model": "dead" if kind == "dead" else model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 500,
        "stream": kind in STREAMS,
    }


async def ask(client: httpx.AsyncClient, kind: str, model: str = "chat") -> Reply:
    try:
        if kind in STREAMS:
            return await _streamed(client, kind, model)
        answer = await client.post("/v1/chat/completions", json=body(kind, model))
    except httpx.HTTPError as fault:
        return Reply(0, False, 0, type(fault).__name__)
    if answer.status_code != 200:
        return Reply(answer.status_code, False, 0, _code(answer))
    said = answer.json()["choices"][0]["message"]["content"]
    return Reply(200, True, len(said.split()))


async def _streamed(client: httpx.AsyncClient, kind: str, model: str) -> Reply:
    words, whole, error = 0, False, ""
    status = 0
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body(kind, model)) as answer:
            status = answer.status_code
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
        return Reply(status, whole, words, type(fault).__name__)
    return Reply(status, whole, words, error)


def _code(answer: httpx.Response) -> str:
    """The refusal's; the server has words of its own for a request that was cancelled in it."""
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return answer.text
    return str(answer.json()["error"]["code"])


def _said(choice: dict[str, Any]) -> str:
    return choice.get("delta", {}).get("content") or ""
