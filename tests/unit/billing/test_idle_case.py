"""Case 12 of the acceptance cases: an hour of a box of our own costs 12.52, and all of that is
somebody's, whoever used it. In hundredths as they would be printed.
"""

from fractions import Fraction

from billing.idle import IDLE, Rule, spread
from billing.invoices import in_minor_units
from billing.money import parse_picos

HOUR = parse_picos("12.52")
BUSY = {"A": 30, "B": 20}  # of a hundred parts of the hour


def borne(rule: Rule) -> dict[str, int]:
    """What tokens took at the planned rate, and with it the share of what is left over."""
    taken = spread(HOUR, "busy", BUSY | {IDLE: 50})
    left = taken.pop(IDLE)
    for name, part in spread(left, rule, BUSY).items():
        taken[name] = taken.get(name, 0) + part
    return taken


def printed(parts: dict[str, int]) -> dict[str, int]:
    return dict(zip(parts, in_minor_units(list(parts.values()), "USD"), strict=True))


def test_case_12_what_idles_is_the_platform_s() -> None:
    parts = borne("platform")

    assert printed(parts) == {"A": 376, "B": 250, IDLE: 626}
    assert sum(parts.values()) == HOUR
    assert sum(Fraction(part, HOUR) for part in parts.values()) == 1


def test_case_12_or_goes_by_who_was_busy() -> None:
    parts = borne("busy")

    assert printed(parts) == {"A": 751, "B": 501}
    assert sum(parts.values()) == HOUR


def test_case_12_an_hour_with_nobody_keeps_its_cost() -> None:
    assert spread(HOUR, "busy", {}) == spread(HOUR, "even", {}) == {IDLE: HOUR}


def test_case_12_ten_in_three_equal_parts_are_ten() -> None:
    parts = spread(parse_picos("10.00"), "even", {"A": 1, "B": 1, "C": 1})

    assert printed(parts) == {"A": 334, "B": 333, "C": 333}
    assert sum(parts.values()) == parse_picos("10.00")
