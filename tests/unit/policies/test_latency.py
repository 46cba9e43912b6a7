import random
from collections.abc import Sequence

import pytest

from policies.latency import MIN_SAMPLES, SLOT_US, SLOTS, LatencyWindow, bucket_of, middle_of

SECOND = 1_000_000


def a_window(values: Sequence[int], now_us: int = 0) -> LatencyWindow:
    window = LatencyWindow()
    for value in values:
        window.add(value, now_us)
    return window


def nearest_rank(values: list[int], p: int) -> int:
    return sorted(values)[-(-len(values) * p // 100) - 1]


def test_there_is_no_percentile_under_the_least_number_of_samples() -> None:
    window = a_window([100] * (MIN_SAMPLES - 1))
    assert window.percentile(95, 0) is None

    window.add(100, 0)

    assert window.percentile(95, 0) == middle_of(bucket_of(100))
    assert window.samples(0) == MIN_SAMPLES


@pytest.mark.parametrize("p", [1, 50, 90, 95, 99, 100])
@pytest.mark.parametrize("seed", range(5))
def test_a_percentile_is_within_1_6_per_cent_of_a_true_sample(p: int, seed: int) -> None:
    drawn = random.Random(seed)
    values = [int(drawn.lognormvariate(13, 1.5)) for _ in range(5_000)]

    found = a_window(values).percentile(p, 0)

    true = nearest_rank(values, p)
    assert abs(found - true) <= max(1, true / 62)


def test_small_durations_are_exact() -> None:
    assert [middle_of(bucket_of(value)) for value in range(64)] == list(range(64))


def test_buckets_never_run_backwards_and_never_straddle() -> None:
    edges = [0, 1, 63, 64, 65, 127, 128, 1_000, 10**6, 2**39, 2**40]

    assert [bucket_of(value) for value in edges] == sorted(bucket_of(value) for value in edges)
    for value in edges:
        assert bucket_of(middle_of(bucket_of(value))) == bucket_of(value)


def test_a_broken_clock_stays_in_bounds() -> None:
    window = a_window([-5, 2**60] * MIN_SAMPLES)

    assert window.percentile(1, 0) == 0
    assert window.percentile(100, 0) == middle_of(bucket_of(2**40))


def test_samples_leave_the_window_after_a_minute() -> None:
    window = a_window([500_000] * 100)

    assert window.percentile(95, SLOTS * SLOT_US - 1) is not None
    assert window.percentile(95, SLOTS * SLOT_US) is None
    assert window.samples(SLOTS * SLOT_US) == 0


def test_a_slowdown_shows_within_the_window() -> None:
    window, medians = LatencyWindow(), []
    for second in range(120):
        for _ in range(20):
            window.add(SECOND if second < 60 else 5 * SECOND, second * SECOND)
        medians.append(window.percentile(50, second * SECOND))

    assert medians[59] == pytest.approx(SECOND, rel=0.02)
    assert medians[95] == medians[119] == pytest.approx(5 * SECOND, rel=0.02)


def test_a_slot_is_used_again_only_after_it_was_emptied() -> None:
    window = a_window([100] * 50)
    for _ in range(MIN_SAMPLES):
        window.add(200, SLOTS * SLOT_US)

    assert window.samples(SLOTS * SLOT_US) == MIN_SAMPLES
    assert window.percentile(1, SLOTS * SLOT_US) == middle_of(bucket_of(200))


def test_a_sample_older_than_the_window_is_dropped() -> None:
    window = a_window([100] * 30, now_us=20 * SLOT_US)

    window.add(900, 14 * SLOT_US)

    assert window.samples(20 * SLOT_US) == 30


def test_a_remembered_percentile_misses_at_most_one_sample_in_64() -> None:
    window = a_window([1_000] * 640)
    assert window.percentile(99, 0) == middle_of(bucket_of(1_000))

    for _ in range(10):
        window.add(SECOND, 0)
    assert window.percentile(99, 0) == middle_of(bucket_of(1_000))
    window.add(SECOND, 0)

    assert window.percentile(99, 0) == middle_of(bucket_of(SECOND))


def test_a_small_window_forgets_what_it_remembered_at_the_next_sample() -> None:
    window = a_window([1_000] * 20)
    assert window.percentile(100, 0) == middle_of(bucket_of(1_000))

    window.add(9_000, 0)

    assert window.percentile(100, 0) == middle_of(bucket_of(9_000))


def test_merged_windows_are_the_window_of_all_samples() -> None:
    drawn = random.Random(7)
    values = [(drawn.randrange(1, SECOND), drawn.randrange(6) * SLOT_US) for _ in range(2_000)]
    whole, left, right = LatencyWindow(), LatencyWindow(), LatencyWindow()
    for number, (value, at_us) in enumerate(sorted(values, key=lambda each: each[1])):
        whole.add(value, at_us)
        (left if number % 2 else right).add(value, at_us)

    left.merge(right.slots(5 * SLOT_US), 5 * SLOT_US)

    assert left.slots(5 * SLOT_US) == whole.slots(5 * SLOT_US)
    assert left.percentile(95, 5 * SLOT_US) == whole.percentile(95, 5 * SLOT_US)


def test_merging_drops_what_is_over_and_what_is_to_come() -> None:
    window, other = LatencyWindow(), a_window([5] * 40, now_us=3 * SLOT_US)

    window.merge(other.slots(3 * SLOT_US), 30 * SLOT_US)
    window.merge(other.slots(3 * SLOT_US), 2 * SLOT_US)

    assert window.samples(30 * SLOT_US) == 0


def test_merging_leaves_the_source_alone() -> None:
    window, other = a_window([5] * 10), a_window([7] * 10)

    window.merge(other.slots(0), 0)
    window.add(9, 0)

    assert other.samples(0) == 10
    assert window.samples(0) == 21


def test_what_others_counted_stands_beside_and_replaces_what_they_said_before() -> None:
    window = a_window([1_000] * 10)

    window.beside({0: {bucket_of(9_000): 30}}, 0)

    assert window.samples(0) == 40
    assert window.percentile(50, 0) == middle_of(bucket_of(9_000))
    assert window.counts(0) == {bucket_of(1_000): 10, bucket_of(9_000): 30}
    assert window.slots(0) == {0: {bucket_of(1_000): 10}}, "only what was counted here travels"

    window.beside({0: {bucket_of(2_000): 30}}, 0)
    assert window.percentile(100, 0) == middle_of(bucket_of(2_000))


def test_what_others_counted_fades_with_the_window() -> None:
    window = LatencyWindow()
    window.beside({0: {5: 30}, 1: {5: 30}}, SLOT_US)

    assert window.samples(SLOT_US) == 60
    assert window.samples((SLOTS - 1) * SLOT_US) == 60
    assert window.samples(SLOTS * SLOT_US) == 30
    window.beside({SLOTS: {5: 1}}, SLOTS * SLOT_US)
    assert window.samples(SLOTS * SLOT_US) == 31
    assert window.samples(30 * SLOT_US) == 0
