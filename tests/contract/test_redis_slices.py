"""Slices of a hold against real stores: what a stream may rely on, whatever becomes of its call."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.stores.redis import keys, records
from gateway.stores.redis.holds import TOKENS, Granted, HoldStore, Settlement, Slice
from tests.holding import TAG, account, ask, books, gate, open_holds, open_reader, slot
from tests.running import run


def test_a_slice_is_what_the_tightest_level_can_still_pay(any_store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        accounts = (account(9_999, "wide"), account(2_345, "tight"), account(999, "t", TOKENS))
        one = ask(accounts=accounts)

        assert isinstance(await holds.admit(TAG, one), Granted)  # 2,000 for 100 tokens
        assert await holds.slicing(TAG, one.hold_id, 120) == Slice(120, -1)
        assert await holds.slicing(TAG, one.hold_id, 220) == Slice(134, 1)
        assert await holds.slicing(TAG, one.hold_id, 220) == Slice(134, 1)

        async with open_reader(any_store_url) as reader:
            assert [await books(reader, each.id) for each in accounts] == [
                (0, 2_340),
                (0, 2_340),
                (0, 234),
            ]

    run(_with(any_store_url, story))


def test_a_grown_hold_is_lifted_whole_however_it_ends(any_store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        settled, released = ask(accounts=(account(9_999),)), ask(accounts=(account(9_999),))
        for one in (settled, released):
            await holds.admit(TAG, one)
            await holds.slicing(TAG, one.hold_id, 300)
        async with open_reader(any_store_url) as reader:
            assert await books(reader) == (0, 2 * 4_000)
            assert await holds.settle(TAG, Settlement(settled.hold_id, 1_234, 5))
            assert await holds.release(TAG, released.hold_id)
            assert await books(reader) == (1_234, 0)
            assert await records.living(reader, TAG) == 0

    run(_with(any_store_url, story))


def test_a_grown_hold_still_says_everything_that_is_needed_to_end_it(store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        one = ask(
            accounts=(account(2**52), account(2**52, "t", TOKENS)),
            gates=(gate(1, 9),),
            slots=(slot(5),),
            meta=b"\x00\xffmeta" * 50,
            owner="a-spool",
            wanted=2**31,
        )
        for upto in (1, 200, 2**31 + 1, 2**32):  # numbers of every length in the record
            await holds.admit(TAG, one)
            await holds.slicing(TAG, one.hold_id, upto)
        async with open_reader(store_url) as reader:
            hold = await records.hold(reader, TAG, one.hold_id)
            assert hold is not None
            assert hold.admission == one
            assert hold.grant == 2**32

    run(_with(store_url, story))


def test_a_hold_that_has_ended_takes_no_slice(store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        one = ask(accounts=(account(9_999),))
        await holds.admit(TAG, one)
        ending = asyncio.ensure_future(holds.settle(TAG, Settlement(one.hold_id, 1, 0)))
        late = holds.slicing(TAG, one.hold_id, 300)
        assert await ending
        await asyncio.wait([late])

        assert await holds.slicing(TAG, one.hold_id, 300) is None
        async with open_reader(store_url) as reader:
            assert await books(reader) == (1, 0)
            assert not await reader.exists(keys.hold(TAG, one.hold_id))

    run(_with(store_url, story))


@pytest.mark.parametrize("turns", range(8))
def test_a_slice_whose_caller_went_away_ends_with_its_hold(store_url: str, turns: int) -> None:
    async def story(holds: HoldStore) -> None:
        one = ask(accounts=(account(9_999),))
        await holds.admit(TAG, one)
        asked = holds.slicing(TAG, one.hold_id, 300)
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.cancel()
        await holds.settle(TAG, Settlement(one.hold_id, 7, 0))
        assert await holds.drain(5.0)
        async with open_reader(store_url) as reader:
            assert await books(reader) == (7, 0)

    run(_with(store_url, story))


def test_many_streams_on_one_budget_never_hold_more_than_it_has(any_store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        asks = [ask(wanted=10, accounts=(account(100_000),)) for _ in range(50)]
        for one in asks:
            assert isinstance(await holds.admit(TAG, one), Granted)  # 1,100 each
        calls = [holds.slicing(TAG, one.hold_id, 10 + n) for n in (64, 128, 192) for one in asks]
        granted = [taken.grant for taken in await asyncio.gather(*calls) if taken is not None]
        async with open_reader(any_store_url) as reader:
            assert await books(reader) == (0, 100_000)
        assert sum(granted[100:]) == 5_000  # 50 x 1,000 for the inputs, the rest in tokens of 10

    run(_with(any_store_url, story))


async def _with(url: str, story: Callable[[HoldStore], Awaitable[None]]) -> None:
    async with open_holds(url) as holds:
        await story(holds)
