"""No hold is left behind: callers cancelled, answers late or lost, the store frozen and killed."""

import asyncio
import random
import time

import pytest
import uvloop

from gateway.stores.redis import keys, records
from gateway.stores.redis.channel import Channel
from gateway.stores.redis.holds import (
    Granted,
    HoldStore,
    Refused,
    Settlement,
    StoreUnavailable,
)
from tests import servers
from tests.holding import TAG, account, ask, books, gate, open_holds, open_reader, slot
from tests.running import run

CAP = 40_000  # room for twenty holds of 2,000


async def clean(url: str) -> None:
    """Nothing is held, no slot is taken, no hold lives."""
    async with open_reader(url) as reader:
        assert (await books(reader))[1] == 0
        assert await reader.zcard(keys.slots(TAG, "lim")) == 0
        assert await records.living(reader, TAG) == 0


@pytest.mark.parametrize("turns", range(8))
def test_a_caller_cancelled_at_any_turn_leaves_no_hold(store_url: str, turns: int) -> None:
    async def story() -> None:
        async with open_holds(store_url) as holds:
            one = ask(accounts=(account(CAP),), slots=(slot(9),))
            asking = asyncio.create_task(holds.admit(TAG, one))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            (answer,) = await asyncio.gather(asking, return_exceptions=True)
            if isinstance(answer, Granted):  # it was quicker: then it is the caller's to release
                await holds.release(TAG, one.hold_id)
            assert await holds.drain(5)
        await clean(store_url)

    run(story())


def test_a_caller_cancelled_when_its_answer_is_already_there_leaves_no_hold(store_url: str) -> None:
    async def story() -> None:
        async with open_holds(store_url) as holds:
            tight = gate(500_000_000, 10**9, "tpm")
            one = ask(accounts=(account(CAP),), slots=(slot(9),), gates=(tight,))
            other = ask()

            async def cancel_the_next() -> None:
                await holds.admit(TAG, other)
                asking.cancel()  # its answer came in the same batch; its turn comes after ours

            cancelling = asyncio.create_task(cancel_the_next())
            asking = asyncio.create_task(holds.admit(TAG, one))
            (answer, _) = await asyncio.gather(asking, cancelling, return_exceptions=True)
            assert isinstance(answer, asyncio.CancelledError)
            await holds.release(TAG, other.hold_id)
            assert await holds.drain(5)
            async with open_reader(store_url) as reader:
                assert not await reader.exists(tight.key)  # the tokens went back as well
        await clean(store_url)

    run(story())


async def _one_request(holds: HoldStore, dice: random.Random, spent: list[int]) -> None:
    one = ask(accounts=(account(CAP),), slots=(slot(15),), gates=(gate(1, 10**12, "tpm"),))
    try:
        answer = await holds.admit(TAG, one)
    except StoreUnavailable:
        return
    if isinstance(answer, Refused):
        return
    cost = dice.randrange(answer.held_money + 1)
    try:
        await asyncio.sleep(dice.random() * 0.003)
    finally:
        ending = asyncio.ensure_future(_end(holds, dice, one.hold_id, cost, spent))
        await asyncio.shield(ending)


async def _end(
    holds: HoldStore, dice: random.Random, hold_id: str, cost: int, spent: list[int]
) -> None:
    if dice.random() < 0.3:
        await holds.release(TAG, hold_id)
    elif await holds.settle(TAG, Settlement(hold_id, cost // 100, 1, event=b"e")):
        spent.append(cost // 100)


async def _churn(url: str, requests: int, seed: int) -> None:
    dice, spent = random.Random(seed), []
    async with open_holds(url) as holds, open_reader(url) as reader:
        tasks: list[asyncio.Task[None]] = []
        for n in range(requests):
            tasks.append(asyncio.create_task(_one_request(holds, dice, spent)))
            if dice.random() < 0.3:
                victim = dice.choice(tasks[-8:])
                asyncio.get_running_loop().call_later(dice.random() * 0.004, victim.cancel)
            if n % 16 == 0:
                await asyncio.sleep(0.001)
                posted, held = await books(reader)
                assert posted + held <= CAP
        await asyncio.gather(*tasks, return_exceptions=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*(t for t in others if "_end" in repr(t)), return_exceptions=True)
        assert await holds.drain(10)
        posted, held = await books(reader)
        assert (posted, held) == (sum(spent), 0)
        assert await reader.xlen(keys.journal(TAG)) == len(spent)
    await clean(url)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_after_churn_with_cancellations_the_books_balance(store_url: str, loop: object) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        runner.run(_churn(store_url, 3_000, seed=7))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_after_long_churn_the_books_balance(store_url: str, seed: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_churn(store_url, 20_000, seed=seed))


def test_an_answer_that_comes_too_late_is_undone() -> None:
    async def story(server: servers.StoreServer) -> None:
        async with open_holds(server.url, admit_within_s=0.05) as holds:
            await holds.admit(TAG, ask())  # the connection and the script are warm
            server.freeze()
            one = ask(accounts=(account(CAP),), slots=(slot(9),))
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable, match="in time"):
                await holds.admit(TAG, one)
            assert time.monotonic() - begun < 30
            server.thaw()
            assert await holds.drain(5)
            async with open_reader(server.url) as reader:
                assert await books(reader) == (0, 0)
                assert await reader.exists(keys.account(TAG, "b", "m"))  # it did take effect
                assert await records.hold(reader, TAG, one.hold_id) is None

    with servers.store_server(servers.valkey_binary()) as server:
        run(story(server))


def test_a_lost_connection_fails_its_callers_at_once_and_their_holds_are_undone() -> None:
    async def story(server: servers.StoreServer) -> None:
        async with open_holds(server.url, admit_within_s=10) as holds:
            await holds.admit(TAG, ask())
            server.freeze()
            asks = [ask(accounts=(account(CAP),), slots=(slot(99),)) for _ in range(20)]
            asking = [asyncio.create_task(holds.admit(TAG, one)) for one in asks]
            await asyncio.sleep(0.01)  # they are written to a server that does not read
            channel = holds.channels.of(TAG)
            assert isinstance(channel, Channel)
            channel.drop()
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(answer, StoreUnavailable) for answer in answers)
            assert holds.owed == 20
            server.thaw()
            assert await holds.drain(10)
            async with open_reader(server.url) as reader:
                assert (await books(reader))[1] == 0
                # Whichever came first, admission or release: nothing of the twenty is left.
                for one in asks:
                    assert await records.hold(reader, TAG, one.hold_id) is None

    with servers.store_server(servers.valkey_binary()) as server:
        run(story(server))


def test_a_store_that_is_killed_refuses_at_once_and_serves_again_when_it_is_back() -> None:
    async def story(server: servers.StoreServer) -> None:
        async with open_holds(server.url) as holds:
            one, two = (ask(accounts=(account(CAP),), slots=(slot(9),)) for _ in range(2))
            assert isinstance(await holds.admit(TAG, one), Granted)
            server.kill()
            with pytest.raises(StoreUnavailable):
                await holds.admit(TAG, two)
            took = []
            for _ in range(20):
                begun = time.monotonic()
                with pytest.raises(StoreUnavailable, match="not connected"):
                    await holds.admit(TAG, ask())
                took.append(time.monotonic() - begun)
            assert min(took) < 0.02
            with pytest.raises(StoreUnavailable):
                await holds.release(TAG, one.hold_id)
            assert holds.owed >= 1
            server.start()
            assert await holds.drain(10)  # the owed release, by a store that forgot the scripts
        await clean(server.url)

    with servers.store_server(
        servers.valkey_binary(), appendonly="yes", appendfsync="always"
    ) as server:
        run(story(server))


def test_a_full_store_refuses_new_holds_and_still_ends_old_ones(any_store_url: str) -> None:
    async def story() -> None:
        async with open_holds(any_store_url) as holds, open_reader(any_store_url) as reader:
            one = ask(accounts=(account(CAP),))
            assert isinstance(await holds.admit(TAG, one), Granted)
            await reader.config_set("maxmemory", "1")
            try:
                with pytest.raises(StoreUnavailable, match="OOM"):
                    await holds.admit(TAG, ask(accounts=(account(CAP),)))
                assert await holds.settle(TAG, Settlement(one.hold_id, 5, 5, event=b"e"))
            finally:
                await reader.config_set("maxmemory", "0")
            assert await books(reader) == (5, 0)
            assert await holds.drain(5)

    run(story())
