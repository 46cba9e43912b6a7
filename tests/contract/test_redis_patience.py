"""A store that is slow rather than away: how long an admission waits for it, and for how long it is
left alone.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.stores.redis.holds import Granted, HoldStore, StoreUnavailable
from tests.fault_proxy import FaultProxy
from tests.holding import TAG, account, ask, books, open_holds, open_reader
from tests.running import run

WITHIN_S = 2.0  # so what takes longer than 0.5 s is slow
CAP = 10**9


@asynccontextmanager
async def far_store(store_url: str) -> AsyncIterator[tuple[FaultProxy, HoldStore]]:
    async with (
        FaultProxy(Path(store_url.removeprefix("unix://").partition("?")[0])) as proxy,
        open_holds(f"redis://127.0.0.1:{proxy.port}", admit_within_s=WITHIN_S) as holds,
    ):
        await holds.admit(TAG, ask())  # the connection, the script and the epoch are known
        try:
            yield proxy, holds
        finally:
            proxy.calm()


async def waited_s(holds: HoldStore) -> float:
    """How long an admission that gets no answer waits for it."""
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await holds.admit(TAG, ask(accounts=(account(CAP),)))
    return time.monotonic() - begun


async def admitted_again(holds: HoldStore) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await holds.admit(TAG, ask(accounts=(account(CAP),)))
            except StoreUnavailable:
                await asyncio.sleep(0.05)
                continue
            assert isinstance(answer, Granted)
            return


def test_after_three_slow_answers_nobody_waits_until_one_is_quick(store_url: str) -> None:
    async def story() -> None:
        async with far_store(store_url) as (proxy, holds), open_reader(store_url) as reader:
            proxy.delay_ms = 350  # each way: slow, but in time
            for _ in range(2):
                assert isinstance(await holds.admit(TAG, ask()), Granted)
            assert 0.4 < await waited_s(holds) < WITHIN_S
            assert sorted([await waited_s(holds) for _ in range(100)])[50] < 0.1
            assert holds.owed <= 1  # what was not sent is not owed
            proxy.calm()
            await admitted_again(holds)
            assert await holds.drain(60)
            assert await books(reader) == (0, 2_000)  # the last one's: the others left nothing

    run(story())


def test_who_waits_already_is_told_when_patience_is_lost(store_url: str) -> None:
    async def story() -> None:
        async with far_store(store_url) as (proxy, holds), open_reader(store_url) as reader:
            proxy.blackhole = True
            waiting = []
            for _ in range(6):  # a call each
                waiting.append(asyncio.create_task(waited_s(holds)))
                await asyncio.sleep(0.01)
            assert min(await asyncio.gather(*waiting)) < 1.5  # not the whole time of each
            proxy.calm()
            await admitted_again(holds)
            assert await holds.drain(60)
            assert await books(reader) == (0, 2_000)

    run(story())


def test_a_slow_answer_now_and_then_is_waited_for(store_url: str) -> None:
    async def story() -> None:
        async with far_store(store_url) as (proxy, holds):
            for number in range(9):
                proxy.delay_ms = 350 if number % 3 else 0
                assert isinstance(await holds.admit(TAG, ask()), Granted)

    run(story())


def test_a_store_that_is_slow_again_at_once_is_left_alone_for_longer(store_url: str) -> None:
    async def story() -> None:
        async with far_store(store_url) as (_, holds):
            patience = holds._of(TAG).admits.patience
            assert patience is not None
            pauses = []
            for _ in range(4):
                patience.lose()
                pauses.append(patience._pause_s)
                patience._answered()
            assert pauses == [1.0, 2.0, 4.0, 5.0]

    run(story())
