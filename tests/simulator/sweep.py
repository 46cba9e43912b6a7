"""Many worlds, one seed after another, in one or several processes; and what a run has to show."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import msgspec

from tests.simulator.scenario import (
    ALL,
    ON_BACKENDS,
    ON_MESSAGES,
    ON_REQUESTS,
    ON_STEPS,
    ON_WORLD,
    Fault,
    drawn,
)
from tests.simulator.world import Report, simulate

WORLD_EVENTS = 8_000


class Tally(msgspec.Struct):
    """The sum of many worlds."""

    seconds: float = 0.0
    worlds: int = 0
    events: int = 0
    requests: int = 0
    rows: int = 0
    struck: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    failed: list[Report] = []

    def add(self, report: Report) -> None:
        self.worlds += 1
        self.events += report.events
        self.requests += report.requests
        self.rows += report.rows
        for fault, where, count in report.struck:
            self.struck[fault, where] += count
        if report.law:
            self.failed.append(report)


def one(seed: int, faults: frozenset[Fault] = ALL) -> Report:
    report = simulate(seed, drawn(seed, WORLD_EVENTS, faults=faults))
    if not report.law:
        report.numbers = []  # only a failing world is shrunk
    return report


def sweep(
    first_seed: int, events: int, *, processes: int = 1, faults: frozenset[Fault] = ALL
) -> Tally:
    """Worlds from `first_seed` on until they come to so many events, or five have failed."""
    began = time.perf_counter()
    tally = Tally()
    for report in _reports(first_seed, processes, faults):
        tally.add(report)
        if tally.events >= events or len(tally.failed) >= 5:
            break
    tally.seconds = time.perf_counter() - began
    return tally


def _reports(first_seed: int, processes: int, faults: frozenset[Fault]) -> Iterator[Report]:
    seeds = range(first_seed, 1 << 40)
    run = partial(one, faults=faults)
    if processes == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        step = processes * 8
        for start in range(first_seed, 1 << 40, step):
            yield from pool.imap_unordered(run, range(start, start + step))


def shown(tally: Tally) -> str:
    """Time, rate, and how often each fault struck where."""
    rate = tally.events / max(tally.seconds, 1e-9)
    run = f"{tally.events:,} events in {tally.seconds:.0f} s, {rate:,.0f}/s"
    size = f"{tally.worlds:,} worlds, {tally.requests:,} requests, {tally.rows:,} rows"
    return "\n".join(
        (
            f"{run}; {size}; {len(tally.failed)} violations",
            "",
            *_table("messages", ON_MESSAGES, tally),
            "",
            *_table("steps", ON_STEPS, tally),
            "",
            *(_line(fault, tally) for fault in (*ON_REQUESTS, *ON_WORLD, *ON_BACKENDS)),
        )
    )


def _table(title: str, faults: tuple[Fault, ...], tally: Tally) -> list[str]:
    values = {fault.value for fault in faults}
    places = sorted({where for fault, where in tally.struck if fault in values})
    hit = sum(bool(tally.struck[fault.value, where]) for fault in faults for where in places)
    head = f"{title:<20}" + "".join(f"{fault.value:>23}" for fault in faults)
    rows = [
        f"{where:<20}" + "".join(f"{tally.struck[fault.value, where]:>23,}" for fault in faults)
        for where in places
    ]
    return [head, *rows, f"{hit} of {len(places) * len(faults)} branches"]


def _line(fault: Fault, tally: Tally) -> str:
    count = sum(n for (value, _), n in tally.struck.items() if value == fault.value)
    return f"{fault.value:<28}{count:>10,}"
