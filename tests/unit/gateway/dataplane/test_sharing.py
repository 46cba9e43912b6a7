from gateway.backends.health import FAILED, SERVED, Backends, Outcome
from gateway.dataplane.sharing import MOST_SEATS, Heard, own
from policies.latency import MIN_SAMPLES, SLOT_US

SECOND = 1_000_000
WALL = 1_763_000_000 * SECOND
KEY = ("bk_1", "m")


def served(backends: Backends, ttft_us: int, requests: int, at_us: int) -> None:
    for _ in range(requests):
        flight = backends.began(*KEY, 1, at_us - ttft_us)
        flight.first_byte(at_us)
        flight.ended(Outcome.SERVED, at_us)


def test_a_worker_ranks_by_what_another_one_measured() -> None:
    here, there = Backends(), Backends()
    served(there, 700_000, MIN_SAMPLES, 5 * SECOND)

    Heard(here).take([own(there, "b", 5 * SECOND, WALL)], 5 * SECOND, WALL)

    live = here.live(6 * SECOND)[KEY]
    assert live.samples == MIN_SAMPLES
    assert live.ttft_p95_us is not None
    assert abs(live.ttft_p95_us - 700_000) < 12_000
    assert live.in_flight == 0, "what is under way is its own affair"


def test_a_word_about_a_slot_replaces_the_one_before_and_machines_share_no_clock() -> None:
    here, there = Backends(), Backends()
    heard = Heard(here)
    ahead_us = 7_777 * SECOND + 3 * SECOND  # between the two monotonic clocks
    for second in range(1, 10):
        served(there, 100_000, 10, second * SECOND + ahead_us)
        said = own(there, "b", second * SECOND + ahead_us, WALL + second * SECOND)
        heard.take([said], second * SECOND, WALL + second * SECOND)

    assert here.live(9 * SECOND)[KEY].samples == 90
    assert here.live(100 * SECOND)[KEY].samples == 0


def test_workers_add_up_and_a_word_does_not_travel_back() -> None:
    here, second, third = Backends(), Backends(), Backends()
    heard = Heard(here)
    for there in (here, second, third):
        served(there, 100_000, 5, SECOND)
    there.began(*KEY, 1, SECOND).ended(Outcome.FAILED, SECOND)

    words = [own(second, "b", SECOND, WALL), own(third, "c", SECOND, WALL)]
    heard.take(words, SECOND, WALL)
    heard.take(words, SECOND, WALL)

    seat = here.seats()[KEY]
    assert seat.ttft.samples(SECOND) == 15
    assert seat.outcomes.counts(SECOND) == {SERVED: 15, FAILED: 1}
    (mine,) = own(here, "a", SECOND, WALL).seats
    assert sum(sum(counts.values()) for counts in mine.rings[0].values()) == 5


def test_only_the_slots_that_may_have_grown_are_told_and_only_of_the_busiest() -> None:
    backends = Backends()
    served(backends, 1_000, 3, SECOND)
    served(backends, 1_000, 3, SECOND + SLOT_US)
    served(backends, 1_000, 3, SECOND + 2 * SLOT_US)
    (seat,) = own(backends, "a", SECOND + 2 * SLOT_US, WALL).seats
    assert [sum(counts.values()) for counts in seat.rings[0].values()] == [3, 3]

    for number in range(MOST_SEATS + 9):
        backends.began(f"quiet_{number}", "m", 1, 3 * SLOT_US).ended(Outcome.SERVED, 3 * SLOT_US)
    told = own(backends, "a", 3 * SLOT_US, WALL).seats
    assert len(told) == MOST_SEATS
    assert told[0].backend_id == "bk_1"
    assert not own(Backends(), "a", 0, WALL).seats
