"""What a request is charged anew on, and what a month of them comes to."""

import random

from billing.meters import Meter, Meters
from billing.prices import Band, Rate, sealed_card
from billing.quantity import Schedule, Step
from billing.rating import rate
from billing.repricing import Tally, card_instead

OLD = sealed_card("USD", [Rate(Meter.INPUT, 3, "old"), Rate(Meter.OUTPUT, 9, "old_o")])
SAME = sealed_card("USD", [Rate(Meter.INPUT, 3, "new"), Rate(Meter.OUTPUT, 8, "new_o")])
LONG = sealed_card("USD", [Rate(Meter.INPUT, 6, "new>100")])


def test_what_makes_no_difference_stays_on_its_card() -> None:
    assert card_instead(Meters(input=10), OLD, (Band(0, SAME),)) is OLD
    assert card_instead(Meters(input=10, output=1), OLD, (Band(0, SAME),)) is SAME


def test_the_size_of_the_prompt_decides_as_it_does_when_it_is_charged() -> None:
    bands = (Band(0, SAME), Band(100, LONG))

    assert card_instead(Meters(input=60, cache_read=40), OLD, bands) is OLD
    assert card_instead(Meters(input=61, cache_read=40), OLD, bands) is LONG


def test_what_has_no_price_is_not_given_away() -> None:
    assert card_instead(Meters(input=1), OLD, ()) is None
    assert card_instead(Meters(input=101, output=1), OLD, (Band(0, LONG),)) is None


def test_a_price_by_quantity_counts_though_it_books_the_same() -> None:
    schedule = Schedule("graduated", (Step(0, 3), Step(10, 1)))
    card = sealed_card("USD", [Rate(Meter.INPUT, 3, "by", schedule)])
    tally = Tally()

    found = card_instead(Meters(input=15), OLD, (Band(0, card),))
    tally.add("e", "team", "m", Meters(input=15), OLD, found)

    repriced = tally.repriced()
    assert found is card
    assert repriced.lines[0].old_picos == repriced.lines[0].new_picos == 45
    assert (repriced.old_tiers_picos, repriced.new_tiers_picos) == (0, 10)


def test_lines_add_up_and_the_digest_is_that_of_what_would_be_booked() -> None:
    drawn = random.Random(7)
    usage = [Meters(input=drawn.randint(0, 200), output=drawn.randint(0, 9)) for _ in range(200)]

    def tallied(bands: tuple[Band, ...]) -> Tally:
        tally = Tally()
        for number, meters in enumerate(usage):
            new = card_instead(meters, OLD, bands)
            tally.add(f"e{number}", f"team_{number % 3}", f"m{number % 2}", meters, OLD, new)
        return tally

    one, same, other = (tallied(bands).repriced() for bands in ((Band(0, SAME),),) * 2 + ((),))

    assert len(one.lines) == 6
    assert sum(line.old_picos for line in one.lines) == sum(rate(each, OLD) for each in usage)
    assert sum(line.new_picos for line in one.lines) == sum(rate(each, SAME) for each in usage)
    assert sum(line.requests for line in one.lines) == len(usage)
    assert (one.digest == same.digest, one.digest == other.digest) == (True, False)
    assert (one.unpriced, other.unpriced) == (0, len(usage))
