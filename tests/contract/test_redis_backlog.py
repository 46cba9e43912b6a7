"""What status shows of the queues, on real stores."""

import msgspec

from gateway.stores.redis import backlog, keys
from gateway.stores.redis.backlog import Backlog
from gateway.stores.redis.holds import HoldStore, Settlement
from gateway.stores.redis.refused import Refused
from tests.holding import TAG, ask, open_channels
from tests.running import run


def test_an_empty_store_owes_nothing(any_store_url: str) -> None:
    async def story() -> None:
        async with open_channels(any_store_url) as channels:
            assert await backlog.read(channels, TAG) == Backlog(0, None, 0, 0)

    run(story())


def test_living_holds_and_what_the_ledger_does_not_have_are_counted(any_store_url: str) -> None:
    async def story() -> None:
        async with open_channels(any_store_url) as channels:
            holds = HoldStore(channels)
            settled, held = ask(), ask()
            await holds.admit(TAG, settled)
            await holds.admit(TAG, held)
            await holds.settle(TAG, Settlement(settled.hold_id, 1, 1, event=b"event"))
            seconds, _ = await channels.house.call("TIME")

            found = await backlog.read(channels, TAG)

            assert (found.journal_entries, found.quarantined, found.holds) == (1, 0, 1)
            assert abs((found.oldest_ms or 0) / 1000 - int(seconds)) < 5

    run(story())


def test_what_is_set_aside_is_told_with_its_reason(any_store_url: str) -> None:
    refused = [Refused(f"req_{n}:1", b"event", True, f"reason {n}", n) for n in range(3)]

    async def story() -> None:
        async with open_channels(any_store_url) as channels:
            for each in refused:
                packed = msgspec.msgpack.encode(each)
                await channels.of(TAG).ask("HSET", keys.quarantine(TAG), each.id, packed)

            found = await backlog.read(channels, TAG)

            assert (found.quarantined, found.aside) == (3, tuple(refused))

    run(story())
