"""Minutes of a box at work: busy once, whoever runs beside whom, and nothing lost at an edge."""

from billing.observed import MINUTE_US, Minute, Work, minutes

SECOND_US = 1_000_000


def test_what_runs_beside_another_keeps_the_box_busy_once() -> None:
    beside = [
        Work(0, SECOND_US, 30 * SECOND_US, 10, 0, 29),
        Work(10 * SECOND_US, 11 * SECOND_US, 40 * SECOND_US, 5, 2, 29),
    ]

    (minute,) = minutes(beside, 0, MINUTE_US)

    assert minute == Minute(0, 40 * SECOND_US, 60 * SECOND_US, 15, 2, 58, 2)


def test_what_is_cut_by_the_edge_of_a_minute_or_of_the_span_is_shared_exactly() -> None:
    work = Work(30 * SECOND_US, 45 * SECOND_US, 135 * SECOND_US, 7, 0, 91)

    whole = minutes([work], 0, 3 * MINUTE_US)
    part = minutes([work], MINUTE_US, 2 * MINUTE_US)

    assert [each.decoded for each in whole] == [15, 60, 16]
    assert sum(each.busy_us for each in whole) == 105 * SECOND_US
    assert part == (whole[1],)
