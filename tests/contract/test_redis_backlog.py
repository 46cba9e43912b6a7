"""What status shows of the queues, on real stores."""

from gateway.stores.redis import backlog
from gateway.stores.redis.backlog import Backlog
from gateway.stores.redis.holds import HoldStore, Settlement
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
