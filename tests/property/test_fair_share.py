"""Turns at a scarce backend, in virtual time: what holds for any load, number of workers, death and
outage; and what two teams get of it where one of them floods.
"""

from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.slot_leases import QUANTUM
from tests.fair_world import BEGAN_US, SECOND_US, Load, Request, World, pour

VICTIM = Load("quiet", 2, 200, 100, 1_000)
FLOOD = Load("flood", 40, 200, 100, 1_000)
MOST = 200
END_US = BEGAN_US + 120 * SECOND_US  # what is served later is what the flood has left behind


@settings(deadline=None, max_examples=40)
@given(
    capacity=st.integers(1, 9),
    workers=st.integers(1, 5),
    teams=st.integers(1, 4),
    a_second=st.sampled_from([1, 5, 20, 60]),
    service_ms=st.sampled_from([5, 50, 500]),
    deaths=st.lists(st.integers(1, 9_000), max_size=2),
    seed=st.integers(0, 2**32),
)
@example(
    capacity=3,
    workers=4,
    teams=4,
    a_second=60,
    service_ms=500,
    deaths=[2994, 4],
    seed=12854879,  # lines with equal counters
)
def test_never_more_at_the_backend_than_it_takes_and_all_are_served_who_wait_on_the_living(
    capacity: int,
    workers: int,
    teams: int,
    a_second: int,
    service_ms: int,
    deaths: list[int],
    seed: int,
) -> None:
    world = World(capacity, workers, seed)
    loads = [Load(f"t{n}", a_second, 10 * n, 50, service_ms) for n in range(teams)]
    poured = [pour(world, load, 10, most=10**9, fifo=False) for load in loads]
    for number, at_ms in enumerate(deaths[: workers - 1]):
        world.after(at_ms * 1000, world.workers[number].dies)

    busy_s = teams * a_second * 10 * service_ms // 1000 // capacity
    world.run((60 + 2 * busy_s) * SECOND_US)

    assert world.peak <= capacity
    left = [one for each in poured for one in each if one.worker.alive and one.ended_us < 0]
    assert left == []
    slots = sum(worker.desk.slots for worker in world.workers if worker.alive)
    assert slots <= capacity
    assert all(worker.desk.busy == 0 for worker in world.workers if worker.alive)


@settings(deadline=None, max_examples=20)
@given(
    capacity=st.integers(1, 8),
    workers=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_no_slot_is_idle_for_long_while_somebody_waits(
    capacity: int, workers: int, seed: int
) -> None:
    world = World(capacity, workers, seed)
    for team in ("a", "b"):
        pour(world, Load(team, 4 * capacity, 100, 50, 500), 20, most=10**9, fifo=False)

    world.run(20 * SECOND_US)

    assert world.idle_while_waiting_us < capacity * 20 * SECOND_US / 50


@settings(deadline=None, max_examples=20)
@given(
    capacity=st.integers(1, 4),
    workers=st.integers(2, 4),
    weights=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
@example(capacity=1, workers=4, weights=[1, 1, 1], seed=3039445931)  # overtaken for 9 s, once
@example(capacity=1, workers=4, weights=[4, 1, 4], seed=3039445931)
def test_nobody_of_the_same_priority_is_forgotten_on_any_worker(
    capacity: int, workers: int, weights: list[int], seed: int
) -> None:
    """Each team asks for as much as the backend can do, at every worker. Within a team whoever came
    first goes first, on whichever worker he waits. Two that came within PATIENCE_MS of each other
    may go the other way round; the one left behind then waits for the next turn of his team. Each
    other team may have QUANTUM tokens before that, at 200 for a request of 0.25 s; his own has two
    seconds, for its turns and for what the workers do not know of each other yet. Where it is not
    the heaviest its turns are as many times further apart as the others weigh more.
    """
    world = World(capacity, workers, seed)
    loads = [
        Load(f"t{n}", 4 * capacity, 100, 50, 250, weight=each) for n, each in enumerate(weights)
    ]
    poured = [pour(world, load, 20, most=10**9, fifo=False) for load in loads]
    world.run(300 * SECOND_US)

    for requests, mine in zip(poured, weights, strict=True):
        starts_us = [one.started_us for one in requests]
        late_us = [max(starts_us[:n]) - at_us for n, at_us in enumerate(starts_us) if n]
        others_us = (len(weights) - 1) * QUANTUM // 200 * SECOND_US // 4 // capacity
        apart = max(1, sum(weights) / (mine * len(weights)))
        assert max(late_us) < 2 * SECOND_US * apart + others_us


def test_a_team_that_floods_takes_nothing_from_the_other(figure: Callable[[str], None]) -> None:
    lines = [
        "order, workers | the quiet team: served, of tokens, median wait, 99 % wait | backend busy"
    ]
    for workers in (1, 2, 4):
        for fifo in (True, False):
            quiet, flood, busy = _flooded(workers, fifo=fifo)
            lines.append(_row("first come" if fifo else "in turns", workers, quiet, flood, busy))
            waits = _waits_ms(quiet)
            if fifo:
                assert _served(quiet) < 0.5
            else:
                assert _served(quiet) == 1
                assert waits[int(len(waits) * 0.99)] < 1_000  # a request lasts 1 s, 8 at a time
                assert busy > 0.97
    figure("\n".join(lines))


def _flooded(workers: int, *, fifo: bool) -> tuple[list[Request], list[Request], float]:
    """Two minutes at a backend that takes eight at a time, for a second each: a quarter of what it
    can do is asked by one team, five times what it can do by the other.
    """
    world = World(8, workers, seed=7)
    quiet = pour(world, VICTIM, 120, most=MOST, fifo=fifo)
    flood = pour(world, FLOOD, 120, most=MOST, fifo=fifo)
    world.run(120 * SECOND_US)
    busy = world.busy_us / (8 * 120 * SECOND_US)
    world.run(300 * SECOND_US)
    assert world.peak == 8
    return quiet, flood, busy


def _row(order: str, workers: int, quiet: list[Request], flood: list[Request], busy: float) -> str:
    waits = _waits_ms(quiet)
    tokens = [
        sum(one.cost for one in each if 0 < one.ended_us <= END_US) for each in (quiet, flood)
    ]
    return (
        f"{order:>10}, {workers} | {_served(quiet):6.1%}, {tokens[0] / sum(tokens):6.1%},"
        f" {waits[len(waits) // 2]:7.0f} ms, {waits[int(len(waits) * 0.99)]:7.0f} ms | {busy:.1%}"
    )


def _served(requests: list[Request]) -> float:
    return sum(one.ended_us > 0 for one in requests) / len(requests)


def _waits_ms(requests: list[Request]) -> list[float]:
    return sorted(one.waited_us / 1000 for one in requests if one.started_us > 0)
