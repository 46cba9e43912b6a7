"""More calls than the store answers in a turn: who waits, who is told in time, what is left."""

import asyncio
import time

from gateway.stores.redis import keys, records
from gateway.stores.redis.holds import Granted, HoldStore, StoreUnavailable
from gateway.stores.redis.lane import MOST_A_CALL, MOST_CALLS, MOST_PENDING
from tests import servers
from tests.holding import TAG, account, ask, books, open_channels, open_holds, open_reader
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until

AT_ONCE = MOST_CALLS * MOST_A_CALL
CAP = 10**9


async def _ask(holds: HoldStore) -> str:
    try:
        answer = await holds.admit(TAG, ask(accounts=(account(CAP),)))
    except StoreUnavailable:
        return "unavailable"
    return "granted" if isinstance(answer, Granted) else "refused"


@ON_BOTH_LOOPS
def test_thousands_in_one_turn_are_all_answered(store_url: str, loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with open_holds(store_url, admit_within_s=60) as holds:
            answers = await asyncio.gather(*(_ask(holds) for _ in range(3_000)))
            assert answers == ["granted"] * 3_000

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_an_answer_that_waits_for_us_to_read_it_is_not_late(
    store_url: str, loop_factory: LoopFactory
) -> None:
    async def story() -> None:
        async with open_channels(store_url) as channels:
            holds = HoldStore(channels, admit_within_s=0.1)
            asking = asyncio.create_task(_ask(holds))
            while not channels.waiting:
                await asyncio.sleep(0)
            time.sleep(0.3)  # noqa: ASYNC251 - it is the loop that is busy, not the store
            assert await asking == "granted"

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_store_that_stands_still_is_given_up_in_time_by_those_that_queue_for_it_too(
    loop_factory: LoopFactory,
) -> None:
    async def story(store: servers.StoreServer) -> None:
        async with open_channels(store.url) as channels, open_reader(store.url) as reader:
            holds = HoldStore(channels, admit_within_s=0.2)
            while await _ask(holds) != "granted":  # as fast as that, sooner or later
                await asyncio.sleep(0.01)
            assert await holds.drain(60)
            store.freeze()
            asking = [asyncio.create_task(_ask(holds)) for _ in range(AT_ONCE + 500)]
            await until(lambda: channels.waiting == MOST_CALLS)
            assert set(await asyncio.gather(*asking)) == {"unavailable"}
            store.thaw()
            assert await holds.drain(60)
            assert (await books(reader))[1] == 2_000  # of the first, which was granted
            assert await records.living(reader, TAG) == 1
            assert await reader.zcard(keys.holds(TAG)) == 1

    with servers.store_server(servers.valkey_binary()) as store:
        run_on(loop_factory, story(store))


@ON_BOTH_LOOPS
def test_a_queue_that_is_long_enough_takes_nobody_else(
    store_url: str, loop_factory: LoopFactory
) -> None:
    async def story() -> None:
        async with open_channels(store_url) as channels, open_reader(store_url) as reader:
            holds = HoldStore(channels, admit_within_s=60)
            await reader.execute_command("CLIENT", "PAUSE", 500, "ALL")
            asking = [asyncio.create_task(_ask(holds)) for _ in range(AT_ONCE)]
            await until(lambda: channels.waiting == MOST_CALLS)
            asking += [asyncio.create_task(_ask(holds)) for _ in range(MOST_PENDING)]
            await asyncio.sleep(0)
            assert await _ask(holds) == "unavailable"
            assert not any(task.done() for task in asking)
            assert set(await asyncio.gather(*asking)) == {"granted"}

    run_on(loop_factory, story())
