"""What the store is admitted against: the process and the epoch that were published, no other."""

import asyncio

import pytest
import redis

from gateway import clock
from gateway.stores.lease_file import Kept
from gateway.stores.redis import epochs, keys
from gateway.stores.redis.channel import AT_ONCE_US, Channel, StoreUnavailable
from gateway.stores.redis.epochs import Epoch
from gateway.stores.redis.holds import Granted, HoldStore, Refused
from gateway.stores.redis.restoring import lend_again, take_back
from policies.leases import TakenBack
from tests import servers
from tests.holding import TAG, account, ask, books, open_channels, open_holds, open_reader
from tests.running import run

LEASE = (keys.lease("rebuild"), "mine")


async def _refused(holds: HoldStore) -> bool:
    try:
        await holds.admit(TAG, ask(accounts=(account(10**6),)))
    except StoreUnavailable:
        return True
    return False


def _set(url: str, text: str | None) -> None:
    with redis.Redis.from_url(url) as client:
        if text is None:
            client.delete(keys.epoch(TAG))
        else:
            client.set(keys.epoch(TAG), text)


def _run_id(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        return str(client.info("server")["run_id"])


@pytest.mark.parametrize(
    "text",
    [None, "", "open", "open:x:0:RUN", "open:1:0:", "open:1:0:other", "closed:1:0:RUN", "\xff"],
)
def test_a_store_of_another_epoch_admits_nothing_and_holds_nothing(
    any_store_url: str, text: str | None
) -> None:
    async def story() -> None:
        run_id = _run_id(any_store_url)
        _set(any_store_url, None if text is None else text.replace("RUN", run_id))
        async with open_holds(any_store_url) as holds, open_reader(any_store_url) as reader:
            assert await _refused(holds)
            assert not await holds.learn_epoch(TAG)
            assert await books(reader) == (0, 0)
            assert holds.owed == 0
            _set(any_store_url, f"open:2:0:{run_id}")
            assert not await _refused(holds)

    run(story())


def test_an_epoch_that_ends_in_mid_work_is_noticed_by_the_next_admission(
    any_store_url: str,
) -> None:
    async def story() -> None:
        run_id = _run_id(any_store_url)
        async with open_holds(any_store_url) as holds:
            assert not await _refused(holds)
            _set(any_store_url, f"closed:2:0:{run_id}")
            assert await _refused(holds)
            assert await holds.extend(TAG, ("none",), 1_000) == ("none",)
            _set(any_store_url, f"open:2:0:{run_id}")
            assert not await _refused(holds)
            _set(any_store_url, f"open:1:0:{run_id}")  # once it was true
            assert await _refused(holds)
            holds.at_least({TAG: 3})
            _set(any_store_url, f"open:2:0:{run_id}")
            assert await _refused(holds)

    run(story())


def test_after_a_new_connection_nothing_is_admitted_until_the_ledger_was_heard(
    any_store_url: str,
) -> None:
    """The process that answers again may have been replaced meanwhile, with others admitting
    elsewhere; there the epoch is the one that we know as well.
    """

    async def story() -> None:
        async with open_holds(any_store_url) as holds:
            link, heard_us = holds.channels.of(TAG), clock.monotonic_us()
            holds.at_least({TAG: 1}, heard_us)
            assert not await _refused(holds)
            before_us = link.since_us
            await _reconnected(holds, after_s=AT_ONCE_US / 1e6 + 0.1)
            assert link.since_us > before_us
            assert await _refused(holds)
            holds.at_least({TAG: 1}, heard_us)  # it was asked before
            assert await _refused(holds)
            holds.at_least({TAG: 1}, clock.monotonic_us())
            assert not await _refused(holds)

    run(story())


def test_a_connection_made_again_at_once_is_the_same_to_us(any_store_url: str) -> None:
    async def story() -> None:
        async with open_holds(any_store_url) as holds:
            holds.at_least({TAG: 1}, clock.monotonic_us())
            for _ in range(20):  # a busy machine may take longer for one
                assert not await _refused(holds)
                before_us = holds.channels.of(TAG).since_us
                await _reconnected(holds)
                if holds.channels.of(TAG).since_us == before_us:
                    break
                holds.at_least({TAG: 1}, clock.monotonic_us())
            assert not await _refused(holds)

    run(story())


async def _reconnected(holds: HoldStore, after_s: float = 0.0) -> None:
    channel, again = holds.channels.of(TAG), asyncio.Event()
    assert isinstance(channel, Channel)
    await asyncio.sleep(after_s)
    holds.channels.when_up(again.set)
    channel.drop()
    await again.wait()


def test_no_slice_is_granted_by_a_closed_store(any_store_url: str) -> None:
    async def story() -> None:
        async with open_holds(any_store_url) as holds:
            one = ask(accounts=(account(10**6),))
            assert isinstance(await holds.admit(TAG, one), Granted)
            _set(any_store_url, f"closed:2:0:{_run_id(any_store_url)}")
            with pytest.raises(StoreUnavailable, match="EPOCH"):
                await holds.slicing(TAG, one.hold_id, 200)

    run(story())


def test_accounts_of_windows_that_began_before_the_epoch_must_have_been_opened(
    any_store_url: str,
) -> None:
    async def story() -> None:
        _set(any_store_url, f"open:1:5:{_run_id(any_store_url)}")
        async with open_holds(any_store_url) as holds, open_reader(any_store_url) as reader:
            answer = await holds.admit(TAG, ask(accounts=(account(10**6),)))
            assert isinstance(answer, Refused)
            assert answer.reason == "unopened"
            await reader.hset(keys.account(TAG, "b", "m"), "posted", 0)
            assert isinstance(await holds.admit(TAG, ask(accounts=(account(10**6),))), Granted)

    run(story())


def test_a_rebuild_that_comes_too_late_ends_no_lease(any_store_url: str) -> None:
    """It was stopped; another has made the counters whole since, and lent again."""

    async def story() -> None:
        async with open_channels(any_store_url) as channels, open_reader(any_store_url) as reader:
            await reader.set(*LEASE)
            lent = account(10**6)
            kept = Kept("w.1/0", TAG, lent, 700)
            old = await epochs.close(channels, TAG, 2, LEASE)
            await lend_again(channels, TAG, old, [kept])
            new = await epochs.close(channels, TAG, 3, LEASE)
            back = [TakenBack(kept.lease_id, lent.key)]
            with pytest.raises(StoreUnavailable, match="EPOCH"):
                await take_back(channels, TAG, old, back)
            assert await reader.hget(lent.key, "leased") == b"700"
            await take_back(channels, TAG, new, back)
            assert await reader.hget(lent.key, "leased") == b"0"

    run(story())


def test_only_the_holder_of_the_lease_closes_and_opens(any_store_url: str) -> None:
    async def story() -> None:
        async with open_channels(any_store_url) as channels, open_reader(any_store_url) as reader:
            with pytest.raises(StoreUnavailable):
                await epochs.close(channels, TAG, 2, LEASE)
            await reader.set(*LEASE)
            closed = await epochs.close(channels, TAG, 2, LEASE)
            assert closed == Epoch(False, 2, closed.since_ms, _run_id(any_store_url))
            await reader.set(LEASE[0], "another's")
            with pytest.raises(StoreUnavailable):
                await epochs.open_again(channels, TAG, closed, LEASE, 7)
            await reader.set(*LEASE)
            later = await epochs.close(channels, TAG, 3, LEASE)
            with pytest.raises(StoreUnavailable):
                await epochs.open_again(channels, TAG, closed, LEASE, 7)
            opened = await epochs.open_again(channels, TAG, later, LEASE, 7)
            assert await epochs.read(channels, TAG) == opened == Epoch(True, 3, 7, later.run_id)
            assert epochs.is_whole(channels, TAG, opened, 3)
            assert not epochs.is_whole(channels, TAG, opened, 4)

    run(story())


def test_a_store_that_comes_back_with_all_its_data_is_another_one() -> None:
    async def story() -> None:
        with servers.store_server(
            servers.valkey_binary(), appendonly="yes", appendfsync="always"
        ) as server:
            async with open_holds(server.url) as holds:
                assert not await _refused(holds)
                server.kill()
                server.start(whole=False)
                while holds.channels.of(TAG).run_id != _run_id(server.url):
                    await asyncio.sleep(0.005)
                assert await _refused(holds)
                servers.make_whole(server.url)
                assert not await _refused(holds)

    run(story())
