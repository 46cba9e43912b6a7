"""Times as they are typed: what is plain is taken, what could be two days is refused."""

import argparse

import pytest

from gateway.commands.times import EmptySpanError, check_span, instant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-10", "2026-10-01T00:00:00Z"),
        ("2026-10-31", "2026-10-31T00:00:00Z"),
        ("2026-10-31T12:00:00Z", "2026-10-31T12:00:00Z"),
        ("2026-10-31T12:00:00.5+02:00", "2026-10-31T12:00:00.5+02:00"),
    ],
)
def test_a_month_a_day_and_a_time_with_its_zone_are_taken(typed: str, meant: str) -> None:
    assert instant(typed) == meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("10/11/2026", "different days in different places: write it as 2026-10-31"),
        ("31.10.2026", "different days"),
        ("10-11-26", "different days"),
        ("2026-1-2", "different days"),
        ("2026-10-31T12:00", "says no time zone"),
        ("2026-10-31 12:00:00", "says no time zone"),
        ("2026-02-30", "no time such as 2026-10, 2026-10-31 or 2026-10-31T12:00:00Z"),
        ("2026-13", "no time such as"),
        ("2026-1", "no time such as"),
        ("October", "no time such as"),
        ("", "no time such as"),
    ],
)
def test_what_is_not_plain_is_refused_in_a_sentence(typed: str, said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        instant(typed)


def test_the_end_is_not_part_of_a_span() -> None:
    october, november = instant("2026-10"), instant("2026-11")

    check_span(october, november)
    check_span(None, october)
    with pytest.raises(EmptySpanError, match="write --from 2026-10 --to 2026-11"):
        check_span(october, october)
