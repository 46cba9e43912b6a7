from gateway.backends.health import REFRESH_US, Backends, Outcome
from policies.breaker import CONSECUTIVE, OPEN_US, State
from policies.latency import MIN_SAMPLES
from policies.objectives import Objective

KEY = ("be_1", "m")
SECOND = 1_000_000


def ended(backends: Backends, outcome: Outcome, at_us: int = 0) -> None:
    backends.began(*KEY, 1, at_us).ended(outcome, at_us)


def test_load_counts_from_began_to_ended_and_ended_counts_once() -> None:
    backends = Backends()
    first = backends.began(*KEY, 100, 0)
    second = backends.began(*KEY, 50, 0)

    assert backends.live(0)[KEY].in_flight == 2
    assert backends.live(0)[KEY].in_flight_tokens == 150

    first.ended(Outcome.SERVED, SECOND)
    first.ended(Outcome.FAILED, SECOND)
    assert backends.live(SECOND)[KEY].in_flight == 1
    assert backends.live(SECOND)[KEY].in_flight_tokens == 50

    second.ended(Outcome.ABANDONED, SECOND)
    assert backends.live(SECOND)[KEY].in_flight == 0


def test_backends_and_models_are_kept_apart() -> None:
    backends = Backends()
    backends.began("be_1", "a", 1, 0)
    backends.began("be_2", "a", 1, 0).ended(Outcome.SERVED, 0)

    live = backends.live(0)
    assert live["be_1", "a"].in_flight == 1
    assert live["be_2", "a"].in_flight == 0
    assert ("be_1", "b") not in live


def test_percentiles_come_from_streams_and_have_to_have_samples() -> None:
    backends = Backends()
    for _ in range(MIN_SAMPLES - 1):
        flight = backends.began(*KEY, 1, 0)
        flight.first_byte(200_000)
        flight.first_byte(900_000)
        flight.ended(Outcome.SERVED, 1_200_000, output_tokens=11)
    assert backends.live(2 * SECOND)[KEY].ttft_p95_us is None

    flight = backends.began(*KEY, 1, 0)
    flight.first_byte(200_000)
    flight.ended(Outcome.SERVED, 1_200_000, output_tokens=11)
    live = backends.live(2 * SECOND + REFRESH_US)[KEY]

    assert live.samples == MIN_SAMPLES
    assert live.ttft_p95_us is not None
    assert abs(live.ttft_p95_us - 200_000) < 4_000
    assert live.tpot_p95_us is not None
    assert abs(live.tpot_p95_us - 100_000) < 2_000


def test_a_plain_answer_says_nothing_of_first_tokens() -> None:
    backends = Backends()
    for _ in range(MIN_SAMPLES):
        backends.began(*KEY, 1, 0).ended(Outcome.SERVED, SECOND, output_tokens=50)
    seat = backends.seat(*KEY)

    assert seat is not None
    assert backends.live(SECOND)[KEY].ttft_p95_us is None
    assert seat.total.samples(SECOND) == MIN_SAMPLES


def test_the_moving_average_jumps_up_and_sinks_slowly() -> None:
    backends = Backends()
    live = backends.live(0)

    def first_byte_after(ttft_us: int, at_us: int) -> int:
        backends.began(*KEY, 1, at_us - ttft_us).first_byte(at_us)
        return live[KEY].ttft_ewma_us

    assert first_byte_after(100_000, SECOND) == 100_000
    assert first_byte_after(900_000, 2 * SECOND) == 900_000
    assert 800_000 < first_byte_after(100_000, 3 * SECOND) < 900_000
    assert first_byte_after(100_000, 63 * SECOND) < 105_000


def test_failures_in_a_row_open_the_breaker_at_once() -> None:
    backends = Backends()
    for _ in range(CONSECUTIVE - 1):
        ended(backends, Outcome.FAILED)
    assert backends.live(0)[KEY].available

    ended(backends, Outcome.FAILED)
    seat = backends.seat(*KEY)

    assert not backends.live(0)[KEY].available
    assert seat is not None
    assert seat.breaker_state(0) is State.OPEN


def test_clients_mistakes_hang_ups_and_rate_limits_never_open_it() -> None:
    backends = Backends()
    for outcome in (Outcome.CLIENT_ERROR, Outcome.ABANDONED, Outcome.REFUSED):
        for _ in range(100):
            ended(backends, outcome)
    assert backends.live(0)[KEY].available


def test_after_its_time_one_probe_goes_and_its_success_closes_the_breaker() -> None:
    backends = Backends()
    for _ in range(CONSECUTIVE):
        ended(backends, Outcome.FAILED)
    later = OPEN_US + REFRESH_US

    assert backends.live(later)[KEY].available
    probe = backends.began(*KEY, 1, later)
    assert not backends.live(later)[KEY].available

    probe.ended(Outcome.SERVED, later + 1)
    assert backends.live(later + 1)[KEY].available


def test_a_probe_that_says_nothing_gives_its_place_back() -> None:
    backends = Backends()
    for _ in range(CONSECUTIVE):
        ended(backends, Outcome.FAILED)
    later = OPEN_US + REFRESH_US
    backends.began(*KEY, 1, later).ended(Outcome.ABANDONED, later)

    assert backends.live(later)[KEY].available


def test_one_never_tried_has_no_seat() -> None:
    assert Backends().seat("be_9", "m") is None


def test_a_view_that_somebody_asks_for_is_measured_at_once_and_forgotten_when_nobody_does() -> None:
    backends = Backends()
    for number in range(MIN_SAMPLES):
        flight = backends.began(*KEY, 1, 0)
        flight.ended(Outcome.SERVED, 100_000 if number < MIN_SAMPLES // 2 else 900_000)
    assert backends.live(SECOND)[KEY].others == {}

    median, recent = Objective("total", 0, 50, 60), Objective("total", 0, 50, 20)
    backends.watch((median, recent), SECOND)
    seen = backends.live(SECOND)[KEY]
    assert abs((seen.others[median.view] or 0) - 100_000) < 2_000
    assert abs((seen.total_p95_us or 0) - 900_000) < 15_000

    backends.watch((median, recent), 30 * SECOND)
    seen = backends.live(30 * SECOND)[KEY]
    assert abs((seen.others[median.view] or 0) - 100_000) < 2_000
    assert seen.others[recent.view] is None
    assert backends.live(91 * SECOND)[KEY].others == {}
