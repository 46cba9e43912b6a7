"""Rates are fitted from what a box did, and claimed only where that shows them."""

from fractions import Fraction

import pytest

from billing.observed import MINUTE_US, Minute, Work, minutes
from billing.rates import LEAST_MINUTES, Fitted, fit
from tests.working import worked

TENTH = Fraction(1, 10)
SECOND_US = 1_000_000


def fitted(works: list[Work], count: int) -> Fitted:
    return fit(minutes(works, 0, count * MINUTE_US), TENTH)


@pytest.mark.parametrize(("load", "seed"), [(0.3, 1), (0.5, 2), (0.9, 3)])
def test_known_rates_are_found_again(load: float, seed: int) -> None:
    found = fitted(worked(seed, 120, load=load), 120)

    assert found.because == ()
    assert found.prefill is not None
    assert found.decode is not None
    assert found.prefill.high is not None
    assert found.prefill.low < found.prefill.middle < found.prefill.high
    assert abs(found.prefill.middle - 5_000) < 1_000
    assert abs(found.decode.middle - 200) < 10
    assert found.at_once == 1


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Thirty boxes of an hour and a half: 80 % are promised, the fit's own noise granted."""
    held = 0
    for seed in range(30):
        rate = fitted(worked(seed, 90), 90).decode
        held += rate is not None and rate.low <= 200 <= (rate.high or 10**9)

    assert 18 <= held <= 30


def test_of_an_hour_less_a_minute_nothing_is_claimed() -> None:
    found = fitted(worked(1, LEAST_MINUTES - 1), LEAST_MINUTES - 1)

    assert (found.prefill, found.decode) == (None, None)
    assert found.because == ("it was busy in 59 minutes; 60 are needed",)


def test_prompts_and_answers_of_one_proportion_are_not_told_apart() -> None:
    found = fitted(worked(1, 120, proportion=0.1), 120)

    assert (found.prefill, found.decode) == (None, None)
    assert "one proportion" in found.because[0]


def test_a_box_that_decodes_nothing_has_a_prefill_rate_alone() -> None:
    found = fitted(worked(1, 120, proportion=0.0), 120)

    assert found.decode is None
    assert found.because == ()
    assert found.prefill is not None
    assert abs(found.prefill.middle - 5_000) < 250


def test_cached_tokens_take_the_share_that_the_profile_says() -> None:
    seen = [
        Minute(at * MINUTE_US, (at % 7 + 1) * SECOND_US, 0, 100 * (at % 7 + 1) - at % 5 * 10,
               at % 5 * 100, 0, 0)
        for at in range(70)
    ]  # fmt: skip

    found = fit(seen, TENTH)

    assert found.prefill is not None
    assert found.prefill.middle == 100
