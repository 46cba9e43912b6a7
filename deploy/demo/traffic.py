"""Real requests through the gateway, as the demo's apps would send them."""

import itertools
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import httpx

QUESTIONS = (
    "Name three fruits.",
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Give me a word that rhymes with light.",
    "How many legs has a spider?",
    "Say good morning in Spanish.",
)
AT_A_TIME = 3


@dataclass(frozen=True)
class Plan:
    """`count` requests of one app for one model."""

    app: str
    model: str
    count: int
    max_tokens: int = 32


@dataclass(frozen=True)
class Outcome:
    """How one request ended. `refusal` is the error's code and message."""

    app: str
    model: str
    status: int
    region: str
    ttft_ms: float
    refusal: tuple[str, str] | None = None


class Traffic:
    def __init__(self, gateway_url: str, keys: dict[str, str]) -> None:
        self._client = httpx.Client(base_url=gateway_url, timeout=120, trust_env=False)
        self._keys = keys
        self._questions = itertools.cycle(QUESTIONS)

    def run(self, plans: Iterable[Plan], after_each: Callable[[Outcome], None]) -> list[Outcome]:
        """Every request of every plan, a few at a time."""
        asks = [plan for plan in plans for _ in range(plan.count)]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            outcomes = []
            for outcome in pool.map(self.one, asks):
                outcomes.append(outcome)
                after_each(outcome)
            return outcomes

    def one(self, plan: Plan) -> Outcome:
        question = next(self._questions)
        if plan.model.startswith("embed"):
            return self._send(plan, "/v1/embeddings", {"input": [question, "demo"]})
        messages = [{"role": "user", "content": question}]
        body = {"messages": messages, "max_tokens": plan.max_tokens, "stream": True}
        return self._send(plan, "/v1/chat/completions", body)

    def _send(self, plan: Plan, path: str, body: dict[str, Any]) -> Outcome:
        began = perf_counter()
        headers = {"authorization": f"Bearer {self._keys[plan.app]}"}
        body = {"model": plan.model, **body}
        with self._client.stream("POST", path, json=body, headers=headers) as answer:
            first = b""
            ttft = 0.0
            for chunk in answer.iter_raw():
                ttft = ttft or (perf_counter() - began) * 1000
                first = first or chunk
        region = answer.headers.get("x-meterhouse-backend-region", "-")
        refusal = None if answer.status_code == 200 else why(first)
        return Outcome(plan.app, plan.model, answer.status_code, region, ttft, refusal)


def why(body: bytes) -> tuple[str, str]:
    try:
        error = json.loads(body)["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "unreadable", body[:200].decode("utf-8", "replace")
