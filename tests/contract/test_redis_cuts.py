"""A cut of the accounts, and whether anything was settled after it."""

from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from gateway.stores.redis import cuts, keys
from gateway.stores.redis.holds import HoldStore, Settlement
from tests.holding import TAG, open_holds, open_reader
from tests.running import run

DECISION = {"d": b"decided", "s": b""}


def _with(url: str, story: Callable[[HoldStore, Redis], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with open_holds(url) as holds, open_reader(url) as client:
            await story(holds, client)

    run(opened())


def test_decisions_that_led_to_nothing_do_not_move_the_counters(any_store_url: str) -> None:
    async def story(holds: HoldStore, client: Redis) -> None:
        first = await cuts.cut(holds.channels, TAG, [])
        assert not await cuts.moved_since(holds.channels, TAG, first)
        for _ in range(3):
            await client.xadd(keys.journal(TAG), DECISION)
        assert not await cuts.moved_since(holds.channels, TAG, first)
        assert await cuts.journaled(holds.channels, TAG, b"+") == []

        second = await cuts.cut(holds.channels, TAG, [])
        await client.xadd(keys.journal(TAG), DECISION)
        await holds.settle(TAG, Settlement("none", 1, 1, event=b"e"))
        assert await cuts.moved_since(holds.channels, TAG, second)
        assert await cuts.journaled(holds.channels, TAG, b"+") == [b"e"]

    _with(any_store_url, story)


def test_what_was_drained_after_the_cut_may_have_moved_them(any_store_url: str) -> None:
    async def story(holds: HoldStore, client: Redis) -> None:
        await client.xadd(keys.journal(TAG), DECISION)
        cut = await cuts.cut(holds.channels, TAG, [])
        await holds.settle(TAG, Settlement("none", 1, 1, event=b"e"))
        newest = (await client.xrevrange(keys.journal(TAG), count=1))[0][0]
        await client.xdel(keys.journal(TAG), newest)
        await client.xadd(keys.journal(TAG), DECISION)
        assert await cuts.moved_since(holds.channels, TAG, cut)

    _with(any_store_url, story)
