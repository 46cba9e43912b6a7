"""What a worker does with leases while the file beside its spool cannot be written."""

from pathlib import Path

from gateway.stores import lease_file
from tests.integration.test_leases import leased, leases_of, lent, none_leased
from tests.integration.test_outage import COST, scene
from tests.running import run


def test_a_lease_that_cannot_be_written_down_is_given_back_at_once(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            await it.budget("bounded", "4")
            leases, spool = leases_of(it), it.house.data.spool.path
            full = spool / "leases.new"  # where the file is made before it takes its place
            full.mkdir()
            assert {a.status_code for a in [await it.ask() for _ in range(4)]} == {200}
            for _ in range(3):
                await leases.look()
                assert leased(store_url) == 0
                assert [*leases.book.leases, *leases.book._retired] == []
            it.store_goes()
            assert (await it.ask()).status_code == 503
            await it.store_returns()
            full.rmdir()
            assert await lent(it) >= COST  # asked for again soon after there is room
            await none_leased(it, store_url)

    run(scenario())


def test_what_was_given_back_while_nothing_could_be_written_is_not_in_the_file_for_long(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            budget = await it.budget("bounded", "4")
            leases, spool = leases_of(it), it.house.data.spool.path
            assert {a.status_code for a in [await it.ask() for _ in range(4)]} == {200}
            await lent(it)
            full = spool / "leases.new"
            full.mkdir()
            leases.recalled([lease.account.key for lease in leases.book.leases.values()])
            await leases.look()
            assert leased(store_url) == 0
            assert [one.account.id for one in lease_file.read(spool)] == [budget]
            full.rmdir()
            await leases.look()
            assert lease_file.read(spool) == ()

    run(scenario())
