"""Ten thousand policies and a thousand backends: what compiling and deciding cost, and how long the
event loop of a worker stands still when such a configuration changes under it.

What a step costs is the least of several tries, by the processor's time: the rest is the machine's.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest

from gateway.clock import now_us
from gateway.dataplane.snapshot import Principal, Route, Snapshot
from gateway.stores.sql import configuration
from gateway.stores.sql.rows import Configuration
from policies.decision import Deny
from policies.filters import UNSEEN
from policies.route import decide
from tests.bench import large
from tests.house import House, open_house
from tests.policy_builders import an_ask
from tests.running import run

pytestmark = pytest.mark.long

MOST_PAUSE_MS = 20  # of a change on an idle machine; the least of several is looked at
MOST_DECISION_US = 200  # among the backends of an ordinary model
MOST_WIDE_US = 4_000  # among a thousand
DE = frozenset({"DE"})
KEYS = 40  # that ask for the first time


def cost_us(step: Callable[[], object], tries: int = 1) -> float:
    least = float("inf")
    for _ in range(tries):
        began = time.thread_time_ns()
        step()
        least = min(least, (time.thread_time_ns() - began) / 1000)
    return least


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """The collector is set as the data plane's processes set it."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Pulse:
    """The longest that the loop stood still since it was last asked."""

    def __init__(self) -> None:
        self._longest = 0.0

    async def beat(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self._longest = max(self._longest, now - last)
            last = now

    def longest_ms(self) -> float:
        longest, self._longest = self._longest, 0.0
        return round(longest * 1000, 1)


def test_ten_thousand_policies_and_a_thousand_backends(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with open_house(tmp_path, store_url, JURISDICTION="DE") as house:
            written = await furnished(house)
            assert (written.policies, written.backends) == (10_000, 1_000)
            config = configuration.load(house.opened.deps.engine)
            compiled(house, config, figure)
            snapshot = Snapshot(config, lambda _: None)
            assert deciding(snapshot, config, "m0", figure) < MOST_DECISION_US
            assert deciding(snapshot, config, large.WIDE, figure) < MOST_WIDE_US
            idle, pauses = await swaps(house)
            figure(
                f"the loop stood still at most (ms): {idle} while nothing happened, {pauses} while"
                " the configuration changed"
            )
            assert min(pauses) <= MOST_PAUSE_MS

    run(scenario(), within_s=240)


async def furnished(house: House) -> large.Written:
    peppers = house.data.plane.peppers
    pepper = peppers.by_version[peppers.current]
    written = await asyncio.to_thread(large.write, house.opened.deps.engine, pepper)
    await house.in_force()
    return written


def compiled(house: House, config: Configuration, figure: Callable[[str], None]) -> None:
    """In a thread, both: reading and compiling; then what each key's first request adds."""
    engine = house.opened.deps.engine
    read_ms = cost_us(lambda: configuration.load(engine), 3) / 1000
    built_ms = cost_us(lambda: Snapshot(config, lambda _: None), 3) / 1000
    first = Snapshot(config, lambda _: None)
    new = firsts(first, config)
    known = firsts(Snapshot(config, lambda _: None, first), config)
    figure(
        f"read in {read_ms:.0f} ms, compiled in {built_ms:.0f} ms of a thread's time; a key's first"
        f" request for a model: {median(new):.0f} us, after a change {median(known):.0f} us (of"
        f" {KEYS} keys the median)"
    )


def firsts(snapshot: Snapshot, config: Configuration) -> list[float]:
    principals = [principal_of(config, snapshot, number) for number in range(KEYS)]
    at = now_us()
    return [cost_us(lambda who=who: snapshot.route(who, "m0", at)) for who in principals]  # type: ignore[misc]


def principal_of(config: Configuration, snapshot: Snapshot, number: int) -> Principal:
    found = snapshot.principal(config.secrets[number].public_id)
    assert found is not None
    return found[0]


def deciding(
    snapshot: Snapshot, config: Configuration, model: str, figure: Callable[[str], None]
) -> float:
    """What every decision costs but a key's first."""
    route = snapshot.route(principal_of(config, snapshot, 0), model, now_us())
    assert not isinstance(route, Deny)
    assert route.branches is not None
    occasion = route.branches.occasion({}, now_us(), stream=True, input_tokens=10)
    route = route.branches.route(route, occasion)
    once_us = cost_us(lambda: decided(route, model))
    each_us = cost_us(lambda: decided(route, model), 100)
    figure(
        f"{model}: {len(route.documents)} documents, {len(route.panel.candidates)} candidates; the"
        f" first decision {once_us:.0f} us, every other {each_us:.1f} us"
    )
    return each_us


def decided(route: Route, model: str) -> None:
    live = {(each.backend_id, each.upstream_model): UNSEEN for each in route.panel.candidates[:9]}
    assert not isinstance(decide(route.panel, an_ask(model=model), live, DE, 7), Deny)


async def swaps(house: House) -> tuple[float, list[float]]:
    """The longest pause in a second of nothing, and in each of several changes."""
    pulse, pauses = Pulse(), []
    beating = asyncio.create_task(pulse.beat())
    with as_in_a_worker():
        await asyncio.sleep(0.1)
        pulse.longest_ms()
        await asyncio.sleep(1)
        idle = pulse.longest_ms()
        for _ in range(7):
            await asyncio.to_thread(_change, house)
            await house.in_force()
            await asyncio.sleep(0.1)
            pauses.append(pulse.longest_ms())
    beating.cancel()
    return idle, pauses


def _change(house: House) -> None:
    with configuration.changing(house.opened.deps.engine):
        pass
