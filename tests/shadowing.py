"""A house in which a team tries a model out on the requests of another one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

from gateway.telemetry import names
from tests.house import House, World, furnish, open_house
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
CHAT = "/v1/chat/completions"
OPEN = {"outage": "open"}


class Stage:
    """`chat` at `live`, `chat-next` at `aside`; the team `labs` tries that one out with `lab`."""

    def __init__(self, house: House, world: World, live: ScriptedBackend) -> None:
        self.house, self.world, self.live = house, world, live
        self.aside = ScriptedBackend()
        self.lab: dict[str, Any] = {}
        self.policy: dict[str, Any] = {}

    async def furnished(self, aside: ScriptedBackend, **fields: Any) -> Self:
        self.aside, house, tenant_id = aside, self.house, self.world.tenant["id"]
        labs = await house.make("teams", tenant_id=tenant_id, name="labs")
        self.lab = await house.make("keys", team_id=labs["id"], name="lab")
        other = {"name": "aside", "dialect": "openai", "region": "lab", "jurisdictions": ["DE"]}
        other |= {"placement": "cloud", "base_url": aside.base_url} | fields
        backend = await house.make("backends", **other)
        target = {"backend_id": backend["id"], "upstream_model": "m"}
        same = {name: self.world.model[name] for name in ("capabilities", "context_window")}
        await house.make("models", name="chat-next", targets=[target], **same)
        prices = {"book": "charge", "model": "chat-next", "currency": "USD"}
        for meter in ("input", "output"):
            await house.make(
                "prices", meter=meter, amount_per_million="1",
                effective_from="2026-01-01T00:00:00Z", **prices,
            )  # fmt: skip
        for key in (self.world.key, self.lab):
            scope = {"key": key["id"]}
            await house.make("budgets", scope=scope, amount="1", period="month", mode="hard")
        return self

    def document(self, percent: int = 100, by: str = "key", **more: Any) -> dict[str, Any]:
        payer = {"key": self.lab["id"]}
        shadow = {"model": "chat-next", "percent": percent, "payer": payer}
        return {
            "name": "trial",
            "scope": {"tenant": self.world.tenant["id"]},
            "match": {"models": ["chat"]},
            "experiment": {"name": "next", "by": by, "shadow": shadow},
        } | more

    async def tried(self, percent: int = 100, by: str = "key", **more: Any) -> None:
        self.policy = await self.house.policy(**self.document(percent, by, **more))
        await self.house.in_force()

    async def ask(self, headers: dict[str, str] | None = None, **more: Any) -> Any:
        sent = {"authorization": f"Bearer {self.world.secret}"} | (headers or {})
        body = {"model": "chat", "messages": HELLO, "max_tokens": 20} | more
        return await self.house.client.post(CHAT, json=body, headers=sent)

    async def asked(self, headers: dict[str, str] | None = None, **more: Any) -> str:
        """The id of a request that was served, once its shadow is over."""
        answer = await self.ask(headers, **more)
        assert answer.status_code == 200, answer.text
        await self.house.settled()
        return str(answer.headers["x-request-id"])

    async def spent(self, key: dict[str, Any]) -> tuple[str, str]:
        budgets = (await self.house.look("budgets", scope_id=key["id"]))["items"]
        return budgets[0]["spent"], budgets[0]["held"]

    def counted(self) -> dict[str, int]:
        """What became of shadows."""
        values = self.house.data.telemetry._registry.values()
        (family,) = [each for each in values if each.family.names == (names.SHADOWS,)]
        return {labels[0]: cells[0] for labels, cells in family.rows}


@asynccontextmanager
async def staged(
    home: Path, store_url: str, aside: dict[str, Any] | None = None, **settings: str
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        live, other = [await stack.enter_async_context(ScriptedBackend()) for _ in range(2)]
        given = {"JURISDICTION": "DE"} | settings
        house = await stack.enter_async_context(open_house(home, store_url, **given))
        world = await furnish(house, {"base_url": live.base_url})
        yield await Stage(house, world, live).furnished(other, **(aside or {}))
