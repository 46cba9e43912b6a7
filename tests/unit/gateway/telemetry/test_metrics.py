"""gateway.telemetry.metrics"""

import pytest

from gateway.telemetry.metrics import COUNTER, HISTOGRAM, Counter, Family, Histogram, Registry

WAIT = Family(names=("wait",), kind=HISTOGRAM, help="", labels=("who",), bounds=(10, 20))
HITS = Family(names=("hits",), kind=COUNTER, help="", labels=("who", "what"))


def test_a_value_on_an_edge_falls_into_the_bucket_that_ends_there() -> None:
    wait = Histogram(WAIT)

    for value in (0, 10, 11, 20, 21):
        wait.child("a").observe(value)

    assert wait.series.rows == [(("a",), [62, 2, 2, 1])]


def test_a_value_observed_many_times_counts_as_often() -> None:
    wait = Histogram(WAIT)

    wait.child("a").observe_times(15, 4)
    wait.child("a").observe_times(15, 0)

    assert wait.series.rows == [(("a",), [60, 0, 4, 0])]


def test_children_of_equal_labels_are_one_series() -> None:
    hits = Counter(HITS)

    hits.child("a", "b").inc()
    hits.child("a", "b").inc(2)

    assert hits.series.rows == [(("a", "b"), [3])]


def test_labels_beyond_the_limit_are_counted_together_and_lose_nothing() -> None:
    hits = Counter(HITS, limit=2)

    for number in range(10):
        hits.child(str(number), "x").inc()

    assert hits.series.rows == [
        (("0", "x"), [1]),
        (("1", "x"), [1]),
        (("other", "other"), [8]),
    ]


def test_a_wrong_number_of_labels_is_an_error_of_the_programmer() -> None:
    with pytest.raises(ValueError, match="has labels"):
        Counter(HITS).child("a")


def test_one_name_cannot_have_two_sets_of_labels() -> None:
    registry = Registry()
    registry.counter(HITS)

    with pytest.raises(ValueError, match="hits is declared twice"):
        registry.counter(Family(names=("hits",), kind=COUNTER, help="", labels=("else",)))


def test_a_gauge_that_fails_hides_no_other_figure() -> None:
    registry = Registry()
    registry.counter(HITS).child("a", "b").inc()
    registry.gauge(Family(names=("bad",), kind="gauge_sum", help=""), lambda: 1 // 0)
    registry.gauge(Family(names=("good",), kind="gauge_sum", help=""), lambda: 7)

    rows = {values.family.names[0]: values.rows for values in registry.values()}

    assert rows == {"hits": [(("a", "b"), [1])], "bad": [], "good": [((), [7])]}
