"""Charges that follow from costs."""

import pytest

from billing.markups import marked_up
from billing.meters import Meter
from billing.prices import Rate, sealed_card
from tests.unit.billing.samples import card


def test_a_markup_is_rounded_up_and_leaves_its_mark_on_the_version() -> None:
    sample = sealed_card("USD", [Rate(Meter.INPUT, 3, "p1"), Rate(Meter.OUTPUT, 4, "p2")])

    charged = marked_up(sample, "1.250")

    assert charged.rates == (
        Rate(Meter.INPUT, 4, "p1*1.25"),
        Rate(Meter.OUTPUT, 5, "p2*1.25"),
    )
    assert charged.id != sample.id


def test_a_markup_of_one_is_the_cost_itself() -> None:
    sample = card()

    assert marked_up(sample, "1.00") is sample


@pytest.mark.parametrize("markup", ["0", "-1", "1.0000001", "twice"])
def test_a_markup_that_makes_no_sense_is_refused(markup: str) -> None:
    with pytest.raises(ValueError):
        marked_up(card(), markup)
