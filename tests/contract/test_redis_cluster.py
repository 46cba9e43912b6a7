"""A cluster as the store: holds, journals, leases and announcements of tags on every shard."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from gateway.stores.redis import address, bus, cuts, keys, leases, quarantine, records, workers
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.redis.holds import Account, Granted, HoldStore, Refused, Settlement
from gateway.stores.redis.journal import Journal
from gateway.stores.redis.refused import Refused as SetAside
from gateway.stores.redis.slots import slot_of
from tests import clusters
from tests.holding import FOREVER_MS, ask, open_channels, open_holds, open_reader
from tests.running import run

TAGS = keys.CLUSTER_TAGS


@pytest.fixture(scope="module")
def cluster() -> Iterator[clusters.Cluster]:
    with clusters.cluster() as found:
        yield found


@pytest.fixture
def empty(cluster: clusters.Cluster) -> clusters.Cluster:
    cluster.empty()
    return cluster


def account(tag: str, cap: int) -> Account:
    return Account(keys.account(tag, "b", "m"), cap, 0, FOREVER_MS, 0, "b")


async def make_whole(holds: HoldStore, client: Redis, tag: str, number: int = 1) -> None:
    """As if the tag's counters had been rebuilt in the process that has them now."""
    run_id = holds.channels.of(tag).run_id
    await client.set(keys.epoch(tag), f"open:{number}:0:{run_id}")


async def made_whole_by(holds: HoldStore, client: Redis, tag: str) -> int:
    """As above, and the port of that process."""
    about = await holds.channels.of(tag).ask("INFO", "server")
    await make_whole(holds, client, tag, 2)
    return int(about.split(b"tcp_port:")[1].split()[0])


async def books(client: Redis, tag: str) -> tuple[int, int]:
    posted, held = await client.hmget(keys.account(tag, "b", "m"), ["posted", "held"])
    return int(posted or 0), int(held or 0)


def test_the_tags_lie_on_every_shard() -> None:
    thirds = [sum(slot_of(tag) // 5462 == third for tag in TAGS) for third in range(3)]
    assert min(thirds) > 10


def test_each_tag_has_its_own_caps_and_its_own_journal(empty: clusters.Cluster) -> None:
    async def story(holds: HoldStore, client: Redis) -> None:
        asked = [(tag, ask(accounts=(account(tag, 5_500),))) for tag in TAGS for _ in range(3)]
        answers = await asyncio.gather(*(holds.admit(tag, one) for tag, one in asked))
        granted = [
            (tag, one.hold_id)
            for (tag, one), answer in zip(asked, answers, strict=True)
            if isinstance(answer, Granted)
        ]
        assert sorted(tag for tag, _ in granted) == sorted([*TAGS, *TAGS, *TAGS])
        settled = await asyncio.gather(
            *(
                holds.settle(tag, Settlement(id_, 700, 7, event=id_.encode()))
                for tag, id_ in granted
            )
        )
        assert all(settled)
        assert not isinstance(
            await holds.admit("s07", ask(input_money=3_401, accounts=(account("s07", 5_500),))),
            Granted,
        )
        for tag in TAGS:
            assert await books(client, tag) == (2_100, 0)
            journal = Journal(client, tag, "job")
            taken = await journal.take(10)
            assert sorted(entry.event.decode() for entry in taken) == sorted(
                id_ for its, id_ in granted if its == tag
            )
            await journal.done([entry.id for entry in taken])
            assert await journal.reclaim(10, idle_ms=0) == ()
            assert await journal.length() == 0

    _with(empty, story)


def test_what_the_jobs_need_is_found_on_the_tags_shard(empty: clusters.Cluster) -> None:
    async def story(holds: HoldStore, client: Redis) -> None:
        for tag in TAGS[:6]:
            one = ask(ttl_ms=1, accounts=(account(tag, 5_000),))
            await holds.admit(tag, one)
            while not await records.overdue(client, tag, 10):
                await asyncio.sleep(0.001)
            assert set(await records.all_of(client, tag, [one.hold_id])) == {one.hold_id}
            assert await records.ids(client, tag) == (one.hold_id,)
            assert await records.living(client, tag) == 1
            lease = await leases.take(client, keys.drain(tag), 60_000)
            assert lease is not None
            assert await leases.renew(client, lease, 60_000)
            assert await leases.give_back(client, lease)
            async with cuts.still(holds.channels, tag):
                assert await leases.is_held(client, keys.still(tag))
            found = await cuts.cut(holds.channels, tag, [keys.account(tag, "b", "m")])
            assert found.shown[0] is not None
            refused = SetAside("evt", b"?", False, "why", 1)
            await quarantine.set_aside(client, tag, [refused])
            assert await quarantine.read(client, tag) == {"evt": refused}

    _with(empty, story)


def test_an_announcement_is_heard_at_whichever_server(empty: clusters.Cluster) -> None:
    async def story() -> None:
        async with open_channels(empty.url) as channels:
            heard: list[asyncio.Queue[int]] = []
            listening = []
            for member in empty.members:
                heard.append(asyncio.Queue())
                where = address.parse(f"redis+cluster://127.0.0.1:{member.port}")
                listening.append(asyncio.create_task(bus.listen(where, heard[-1].put_nowait)))
            assert [await queue.get() for queue in heard] == [0] * len(heard)
            await bus.publish(channels, 42)
            assert [await queue.get() for queue in heard] == [42] * len(heard)
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)
            assert await workers.read(channels, 0) == []

    run(story())


def test_a_slot_that_moves_under_load_takes_its_tenant_along(empty: clusters.Cluster) -> None:
    tag = "s00"
    home = empty.master_of(tag)
    other = next(
        each for each in empty.members if each is not home and each.ask("ROLE")[0] == b"master"
    )
    answered = 0

    async def one(holds: HoldStore) -> None:
        nonlocal answered
        this = ask(accounts=(account(tag, 10**9),))
        try:
            answer = await holds.admit(tag, this)
        except StoreUnavailable:  # it is moving, or its counters are not known to be whole there
            await asyncio.sleep(0.001)
            return
        assert isinstance(answer, Granted)
        settlement = Settlement(this.hold_id, 5, 1, event=b"e")
        while True:
            with suppress(StoreUnavailable):
                assert await holds.settle(tag, settlement)
                break
            await asyncio.sleep(0.001)
        answered += 1

    async def keep_on(holds: HoldStore, moved: asyncio.Event) -> None:
        while not moved.is_set():
            await one(holds)
        await one(holds)

    async def story(holds: HoldStore, client: Redis) -> None:
        moved = asyncio.Event()
        busy = [asyncio.create_task(keep_on(holds, moved)) for _ in range(8)]
        await asyncio.to_thread(_move, home, other, slot_of(tag), tag)
        before = answered
        assert before
        while (
            not holds.channels.of(tag).up or await made_whole_by(holds, client, tag) != other.port
        ):
            await asyncio.sleep(0.01)
        while answered < before + 8:
            await asyncio.sleep(0.001)
        moved.set()
        await asyncio.gather(*busy)
        assert await holds.drain(5)
        assert empty.master_of(tag) is other
        assert await books(client, tag) == (5 * answered, 0)
        assert await Journal(client, tag, "job").length() == answered

    _with(empty, story)


def _move(home: clusters.Member, other: clusters.Member, slot: int, tag: str) -> None:
    """The whole slot at once, as servers can that have atomic migration."""
    there = other.ask("CLUSTER", "MYID")
    home.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", there)
    clusters.eventually(lambda: other.ask("EXISTS", keys.account(tag, "b", "m")) == 1)


def test_during_a_migration_key_by_key_the_slot_is_refused_and_nothing_is_counted_twice(
    empty: clusters.Cluster,
) -> None:
    tag = "s07"
    home = empty.master_of(tag)
    other = next(
        each for each in empty.members if each is not home and each.ask("ROLE")[0] == b"master"
    )

    async def story(holds: HoldStore, client: Redis) -> None:
        first = ask(accounts=(account(tag, 2_500),))
        assert isinstance(await holds.admit(tag, first), Granted)
        await asyncio.to_thread(_begin_moving, home, other, slot_of(tag))
        # The account goes ahead; the other server shows it, this one does not.
        key = keys.account(tag, "b", "m")
        await asyncio.to_thread(home.ask, "MIGRATE", "127.0.0.1", other.port, key, 0, 5_000)
        with pytest.raises(StoreUnavailable):
            await holds.admit(tag, ask(accounts=(account(tag, 2_500),)))
        await asyncio.to_thread(_end_moving, home, other, slot_of(tag))
        while await made_whole_by(holds, client, tag) != other.port or not await holds.drain(1):
            await asyncio.sleep(0.01)
        answer = await holds.admit(tag, ask(least=100, accounts=(account(tag, 2_500),)))
        assert isinstance(answer, Refused)
        assert answer.reason == "budget"
        assert await books(client, tag) == (0, 2_000)

    _with(empty, story)


def _begin_moving(home: clusters.Member, other: clusters.Member, slot: int) -> None:
    there, here = other.ask("CLUSTER", "MYID"), home.ask("CLUSTER", "MYID")
    other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
    home.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", there)


def _end_moving(home: clusters.Member, other: clusters.Member, slot: int) -> None:
    there = other.ask("CLUSTER", "MYID")

    def ended() -> bool:
        rest = home.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
        if rest:
            home.ask("MIGRATE", "127.0.0.1", other.port, "", 0, 5_000, "KEYS", *rest)
        home.ask("CLUSTER", "SETSLOT", slot, "NODE", there)  # refused while it holds any
        other.ask("CLUSTER", "SETSLOT", slot, "NODE", there)
        return True

    clusters.eventually(ended)


def _with(cluster: clusters.Cluster, story: Callable[[HoldStore, Redis], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with open_holds(cluster.url) as holds, open_reader(cluster.url) as client:
            for tag in TAGS:
                await make_whole(holds, client, tag)
            await story(holds, client)

    run(opened())
