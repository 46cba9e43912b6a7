"""Whatever fails and whenever, the laws hold; and where they would not, the simulator says so."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.simulator import plants
from tests.simulator.scenario import ALL, drawn
from tests.simulator.shrink import shrunk, told, trace
from tests.simulator.sweep import WORLD_EVENTS, shown, sweep
from tests.simulator.world import Parts, Report, simulate

ROOT = Path(__file__).parents[2]
SLICE_EVENTS = 200_000
FOUND_WITHIN_EVENTS = 1_000_000
LONG_EVENTS = int(os.environ.get("SIMULATED_EVENTS", "20000000"))
PLANTED = (
    plants.double_settle,
    plants.refund_on_expiry,
    plants.check_then_act,
    plants.stale_epoch,
    plants.not_recounted,
    plants.key_released_early,
    plants.posted_without_mark,
    plants.spent_unreserved,
    plants.given_back_unsettled,
    plants.ended_by_its_time,
    plants.not_lent_again,
    plants.posted_beside_its_lease,
)


def test_a_slice_of_all_worlds_breaks_no_law(figure: Callable[[str], None]) -> None:
    tally = sweep(1, SLICE_EVENTS)

    figure(shown(tally))
    assert [told(failed) for failed in tally.failed] == []
    assert {fault for fault, _ in tally.struck} == {fault.value for fault in ALL}


def test_a_seed_tells_the_same_story_every_time() -> None:
    scenario = drawn(7, WORLD_EVENTS)

    assert simulate(7, scenario) == simulate(7, scenario)


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_bug_is_found(plant: Callable[[], Parts], figure: Callable[[str], None]) -> None:
    failed, events = _first_failure(plant)

    figure(f"seed {failed.seed}, after {events:,} events: {failed.violation}")
    assert events <= FOUND_WITHIN_EVENTS


@pytest.mark.long
@pytest.mark.parametrize("plant", PLANTED)
def test_of_a_planted_bug_a_small_world_is_left_that_shows_it(
    plant: Callable[[], Parts], figure: Callable[[str], None]
) -> None:
    failed, _ = _first_failure(plant)

    small = shrunk(failed, plant)

    figure(f"{small.events} events, {len(small.numbers)} faults: {small.violation}")
    assert simulate(small.seed, small.scenario, plant()).violation == small.violation


def test_a_failing_world_is_made_small_and_fails_again() -> None:
    failed, _ = _first_failure(plants.double_settle)

    small = shrunk(failed, plants.double_settle)

    assert small.law == failed.law
    assert len(small.numbers) <= 8
    assert small.events < failed.events
    again = msgspec.json.decode(msgspec.json.encode(small.scenario), type=type(small.scenario))
    assert simulate(small.seed, again, plants.double_settle()).violation == small.violation
    assert any(small.request_id in line for line in trace(small, plants.double_settle))


def _first_failure(plant: Callable[[], Parts]) -> tuple[Report, int]:
    events, seed = 0, 0
    while events <= FOUND_WITHIN_EVENTS:
        seed += 1
        report = simulate(seed, drawn(seed, WORLD_EVENTS), plant())
        events += report.events
        if report.law:
            return report, events
    raise AssertionError(f"not found within {events} events")


@pytest.mark.long
def test_twenty_million_events_break_no_law(figure: Callable[[str], None]) -> None:
    command = [sys.executable, "-P", "-m", "tests.simulator", "--seed", "100000"]
    command += ["--events", str(LONG_EVENTS), "--processes", "2"]

    ran = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    figure(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
