"""Leases: one holder at a time, on real stores."""

import pytest

from gateway.stores.redis import keys, leases
from gateway.stores.redis.channel import StoreUnavailable
from tests.holding import open_reader
from tests.running import run


def test_a_lease_has_one_holder_until_it_is_given_back(any_store_url: str) -> None:
    async def story() -> None:
        async with open_reader(any_store_url) as client:
            mine = await leases.take(client, "drain", 60_000)
            assert mine is not None
            assert await leases.take(client, "drain", 60_000) is None
            assert await leases.take(client, "other", 60_000) is not None
            assert await leases.give_back(client, mine)
            assert not await leases.give_back(client, mine)
            assert await leases.take(client, "drain", 60_000) is not None

    run(story())


def test_a_lease_that_ran_out_cannot_be_renewed_or_taken_from_the_next(any_store_url: str) -> None:
    async def story() -> None:
        async with open_reader(any_store_url) as client:
            old = await leases.take(client, "drain", 60_000)
            assert old is not None
            assert await leases.renew(client, old, 90_000)
            assert await client.pttl(keys.lease("drain")) > 60_000
            await client.delete(keys.lease("drain"))  # as if its time had run out
            new = await leases.take(client, "drain", 60_000)
            assert new is not None
            assert not await leases.renew(client, old, 60_000)
            assert not await leases.give_back(client, old)
            assert await leases.renew(client, new, 60_000)

    run(story())


def test_a_store_that_is_away_is_said_to_be_unavailable() -> None:
    async def story() -> None:
        async with open_reader("unix:///tmp/mh-no-such.sock") as client:
            with pytest.raises(StoreUnavailable):
                await leases.take(client, "drain", 1_000)
            with pytest.raises(StoreUnavailable):
                await leases.renew(client, leases.Lease("drain", "token"), 1_000)

    run(story())
