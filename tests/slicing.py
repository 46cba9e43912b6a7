"""What tests of sliced holds share: a house whose team holds by the slice, and streams read to
their end.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
CHAT = "/v1/chat/completions"
SLICE = 32  # tokens

Story = Callable[["Sliced"], Awaitable[None]]


class Sliced:
    """A house where an output token costs 0.001 and a prompt nothing."""

    def __init__(self, house: House, world: World, backend: ScriptedBackend) -> None:
        self.house = house
        self.world = world
        self.backend = backend
        self._newcomers = 0
        self._budget = ""

    async def budget(self, tokens: int, **scope: str) -> None:
        """One that can pay so many output tokens; of the key unless told."""
        made = await self.house.make(
            "budgets",
            scope=scope or {"key": self.world.key["id"]},
            amount=f"{tokens // 1000}.{tokens % 1000:03d}",
            period="month",
        )
        await self.house.in_force()
        self._budget = made["id"]

    async def newcomer(self, tokens: int) -> None:
        """From now on another key asks, with a budget of so many tokens."""
        self._newcomers += 1
        squad, name = self.world.squad["id"], f"app-{self._newcomers}"
        key = await self.house.make("keys", team_id=squad, name=name)
        self.world.key, self.world.secret = key, key["secret"]
        await self.budget(tokens)

    async def left(self) -> tuple[int, int]:
        """(tokens spent, tokens held) of the newest budget, once all is settled."""
        await self.house.settled()
        return await self.held()

    async def held(self) -> tuple[int, int]:
        """The same at this moment."""
        budget = await self.house.look(f"budgets/{self._budget}")
        return tokens_of(budget["spent"]), tokens_of(budget["held"])

    def stream(self, **body: Any) -> "Stream":
        return Stream(self, {"model": "chat", "messages": HELLO, "stream": True} | body)

    async def ask(self, **body: Any) -> httpx.Response:
        request = {"model": "chat", "messages": HELLO} | body
        return await self.house.ask(self.world.secret, CHAT, **request)


def tokens_of(amount: str) -> int:
    whole, _, rest = amount.partition(".")
    assert len(rest) <= 3, amount
    return int(whole) * 1000 + int(rest.ljust(3, "0"))


class Stream:
    """One stream as its client reads it: `async with ... as stream`, then `async for event`."""

    def __init__(self, sliced: Sliced, body: dict[str, Any]) -> None:
        self._sliced = sliced
        self._body = body
        self._stack = AsyncExitStack()
        self.answer: httpx.Response
        self.raw = b""
        self._pieces: AsyncGenerator[bytes, None]

    async def __aenter__(self) -> Self:
        headers = {"authorization": f"Bearer {self._sliced.world.secret}"}
        client = self._sliced.house.client
        opened = client.stream("POST", CHAT, json=self._body, headers=headers)
        self.answer = await self._stack.enter_async_context(opened)
        self._pieces = self.answer.aiter_raw()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pieces.aclose()
        await self._stack.aclose()

    async def read(self) -> Self:
        """To the end."""
        async for piece in self._pieces:
            self.raw += piece
        return self

    async def words(self, most: int) -> None:
        """Until so many words have come."""
        while self.tokens < most:
            self.raw += await anext(self._pieces)

    @property
    def events(self) -> list[Any]:
        """Decoded, without the end mark."""
        told = [line[6:] for line in self.raw.decode().split("\n\n") if line.startswith("data: ")]
        return [json.loads(each) for each in told if each != "[DONE]"]

    @property
    def done(self) -> bool:
        return self.raw.endswith(b"data: [DONE]\n\n")

    @property
    def tokens(self) -> int:
        """Words of the scripted backend that came: each is one token."""
        return sum(
            bool(choice.get("delta", {}).get("content"))
            for event in self.events
            for choice in event.get("choices", ())
        )


def sliced_house(
    tmp_path: Path, store_url: str, story: Story, store_timeout_ms: int = 30_000, **rules: Any
) -> None:
    """Plays a story in a house whose tenant holds by slices of SLICE tokens."""

    async def whole() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, STORE_TIMEOUT_MS=str(store_timeout_ms)) as house,
        ):
            world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))
            budget = {"hold": "sliced", "slice": SLICE, "least_output": 1} | rules
            await house.policy(name="sliced", scope={"tenant": world.tenant["id"]}, budget=budget)
            await house.in_force()
            await story(Sliced(house, world, backend))

    run(whole())
