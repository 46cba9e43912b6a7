"""The store's master is killed under load, and a replica takes its place: in a cluster of six, and
behind Sentinel. No budget is overdrawn, each answer has one row, and it costs seconds.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import clusters, failover
from tests.failover import Scene, Spender
from tests.running import run
from tests.scripted_answers import Script

ANSWERS = 150  # what a tenant's budget pays for
AMOUNT = "15.00"
MUCH_ANSWERS = 600  # enough to lose the store twice in, on a quick machine too
MUCH = "60.00"
CLIENTS = 6
WITHIN_S = 240


async def tenant_on_each_shard(
    here: Scene, cluster: clusters.Cluster, amount: str = AMOUNT
) -> list[Spender]:
    by_master: dict[clusters.Member, Spender] = {}
    while len(by_master) < 3:
        made = await here.tenant(amount)
        master = await asyncio.to_thread(cluster.master_of, made.tag)
        by_master.setdefault(master, made)
    here.spenders = list(by_master.values())
    return here.spenders


def told(lost: list[Spender], at: float, others: Sequence[Spender] = ()) -> str:
    back = max(each.back_after_ms(at) for each in lost)
    if not others:
        return f"served again {back} ms after"
    gap = max(each.longest_gap_ms(at, at + back / 1000) for each in others)
    return f"served again {back} ms after, tenants of other shards waited {gap} ms at most"


def test_a_cluster_loses_a_master_under_load_and_then_all_its_data(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    async def story(cluster: clusters.Cluster) -> None:
        async with failover.scene(tmp_path, cluster.url) as here:
            lost, *others = await tenant_on_each_shard(here, cluster, MUCH)
            spending = [asyncio.create_task(lost.spend(CLIENTS))]
            spending += [asyncio.create_task(each.spend(2)) for each in others]
            await here.until(lambda: all(each.served > 5 for each in here.spenders))
            master = await asyncio.to_thread(cluster.master_of, lost.tag)
            master.kill()
            at = time.monotonic()
            await here.until(lambda: lost.served_since(at) > 10)
            assert await asyncio.to_thread(cluster.master_of, lost.tag) is not master
            await asyncio.to_thread(cluster.empty)
            emptied = time.monotonic()
            await asyncio.gather(*spending)
            await here.closed()
            here.agree(MUCH_ANSWERS)
            figure(
                f"3 masters, 3 replicas, 3 tenants: one master killed -9: "
                f"{told([lost], at, others)}; all shards emptied: {told(here.spenders, emptied)}; "
                f"{sum(here.answered().values())} answers, as many rows"
            )

    with clusters.cluster() as cluster:
        run(story(cluster), WITHIN_S)


def test_a_cluster_fails_over_to_a_replica_that_has_old_data(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    async def story(cluster: clusters.Cluster) -> None:
        async with failover.scene(tmp_path, cluster.url) as here:
            tenant = await here.tenant(AMOUNT)
            spending = asyncio.create_task(tenant.spend(CLIENTS))
            await here.until(lambda: tenant.served > 10)
            master = await asyncio.to_thread(cluster.master_of, tenant.tag)
            replica = await asyncio.to_thread(cluster.replica_of, master)
            await asyncio.to_thread(replica.fall_behind, master)
            before = tenant.served
            await here.until(lambda: tenant.served > before + 60)
            missed = tenant.served - before
            master.kill()
            at = time.monotonic()
            await spending
            assert cluster.master_of(tenant.tag) is replica
            await here.closed()
            here.agree(ANSWERS)
            figure(
                f"replica {missed} answers behind when its master was killed -9: "
                + told([tenant], at)
            )

    with clusters.cluster() as cluster:
        run(story(cluster), WITHIN_S)


def test_a_shard_that_is_lost_for_good_stops_its_own_tenants_only(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    async def story(cluster: clusters.Cluster) -> None:
        async with failover.scene(tmp_path, cluster.url) as here:
            lost, *others = await tenant_on_each_shard(here, cluster)
            spending = [asyncio.create_task(each.spend(CLIENTS)) for each in here.spenders]
            await here.until(lambda: all(each.served > 5 for each in here.spenders))
            master = await asyncio.to_thread(cluster.master_of, lost.tag)
            replica = await asyncio.to_thread(cluster.replica_of, master)
            replica.kill()
            master.kill()
            at = time.monotonic()
            here.spenders = others
            await asyncio.gather(*spending[1:])
            done = time.monotonic()
            await here.booked_up()
            for each in others:
                assert here.booked()[each.name] == (ANSWERS, ANSWERS * failover.ANSWER_NANOS)
            assert lost.asked[-1].status == 503
            store = (await here.house.look("status"))["stores"]["redis"]
            assert not store["ok"]
            assert lost.tag in store["detail"]
            spending[0].cancel()
            gap = max(each.longest_gap_ms(at, each.last_served) for each in others)
            booked_ms = round((time.monotonic() - done) * 1000)
            figure(
                f"a shard lost with its replica: tenants of the others waited {gap} ms at most and"
                f" were booked to the last row {booked_ms} ms after their last answer"
            )

    with clusters.cluster() as cluster:
        run(story(cluster), WITHIN_S)


def test_a_master_behind_sentinel_is_lost_under_load(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    async def story(service: clusters.Service) -> None:
        async with failover.scene(tmp_path, service.url) as here:
            tenant = await here.tenant(AMOUNT)
            spending = asyncio.create_task(tenant.spend(CLIENTS))
            await here.until(lambda: tenant.served > 20)
            master = service.master()
            master.kill()
            at = time.monotonic()
            await spending
            assert service.master() is not master
            await here.closed()
            here.agree(ANSWERS)
            figure(f"behind 3 sentinels, the master killed -9: {told([tenant], at)}")

    with clusters.sentinel_service() as service:
        run(story(service), WITHIN_S)


@pytest.mark.long
def test_master_after_master_of_a_cluster_is_lost(
    tmp_path: Path, database_url: str, figure: Callable[[str], None]
) -> None:
    async def story(cluster: clusters.Cluster) -> None:
        async with failover.scene(tmp_path, cluster.url, database_url) as here:
            here.backend.script = Script(tokens=100, delay_ms=300)
            for outage in ("strict", "bounded") * 3:
                await here.tenant("100.00", outage)
            spending = [asyncio.create_task(each.spend(3)) for each in here.spenders]
            back = []
            for lost in here.spenders:
                await here.until(lambda lost=lost: lost.served > 5)
                master = await asyncio.to_thread(cluster.master_of, lost.tag)
                master.kill()
                at = time.monotonic()
                await here.until(lambda lost=lost, at=at: lost.served_since(at) > 5)
                back.append(lost.back_after_ms(at))
                await asyncio.to_thread(master.start)
                await asyncio.to_thread(cluster.is_sound)
            await asyncio.gather(*spending)
            await here.closed()
            here.agree(1_000)
            figure(
                f"6 masters killed -9, one after another: served after {back} ms"
                " (every other one of the tenants has leases)"
            )

    with clusters.cluster(appendonly="yes") as cluster:
        run(story(cluster), 300)
