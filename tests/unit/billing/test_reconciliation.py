from typing import Any

from billing.meters import Meter, Meters, Provenance
from billing.money import format_picos
from billing.prices import Rate, sealed_card
from billing.provider_bills import Bill, BillLine, read
from billing.rating import rate
from billing.reconciliation import Compared, Metered, by_cause, compare

DAY = "2026-10-14"
CARD = sealed_card("USD", [Rate(Meter.INPUT, 3_000_000, "i"), Rate(Meter.OUTPUT, 15_000_000, "o")])


def rows(**given: Any) -> Metered:
    fields: dict[str, Any] = {
        "day": DAY,
        "model": "smol",
        "provenance": Provenance.REPORTED,
        "winner": True,
        "card": CARD,
        "rows": 10,
        "usage": Meters(input=1_000_000, output=200_000),
        **given,
    }
    fields.setdefault("told", fields["usage"])
    fields.setdefault("cost_picos", rate(fields["usage"], CARD) if fields["card"] else 0)
    return Metered(**fields)


def billed(*lines: str) -> Bill:
    header = "date,model,meter,quantity,amount,currency\n"
    return read(header + "".join(f"{DAY},smol,{line},USD\n" for line in lines))


def causes(bill: Bill, *metered: Metered) -> list[tuple[str, str, int, str]]:
    (each,) = compare(bill, metered)
    assert each.gap_picos == sum(cause.amount_picos for cause in each.causes)
    return [(c.cause, c.meter, c.tokens, format_picos(c.amount_picos)) for c in each.causes]


SAME = ("input,1000000,3.00", "output,200000,3.00")


def test_what_agrees_has_no_causes() -> None:
    (each,) = compare(billed(*SAME), [rows()])

    assert each == Compared(
        day=DAY,
        model="smol",
        billed_tokens=1_200_000,
        metered_tokens=1_200_000,
        billed_picos=6 * 10**12,
        metered_picos=6 * 10**12,
        estimated_tokens=0,
        losing_tokens=0,
        causes=(),
    )


def test_another_price_is_named_with_both() -> None:
    (each,) = compare(billed("input,1000000,3.50", SAME[1]), [rows()])

    (cause,) = each.causes
    assert (cause.cause, cause.meter, format_picos(cause.amount_picos)) == ("price", "input", "0.5")
    assert (cause.billed_per_million, cause.metered_per_million) == ("3.5", "3")


def test_attempts_that_lost_and_were_not_billed_are_told_from_those_that_were() -> None:
    lost = rows(winner=False, rows=2, usage=Meters(input=40_000, output=5_000))

    assert causes(billed(*SAME), rows(), lost) == [
        ("losing_attempts", "input", -40_000, "-0.12"),
        ("losing_attempts", "output", -5_000, "-0.075"),
    ]
    with_them = ("input,1040000,3.12", "output,205000,3.075")
    assert causes(billed(*with_them), rows(), lost) == []


def test_a_gap_lies_with_estimates_before_it_is_a_matter_of_counting() -> None:
    guess = rows(provenance=Provenance.ESTIMATED, rows=1, usage=Meters(input=1000, output=300))
    more = ("input,1001000,3.003", "output,201200,3.018")

    assert causes(billed(*more), rows(), guess) == [("estimated", "output", 900, "0.0135")]
    assert causes(billed(*more), rows(usage=Meters(1_001_000, output=200_300))) == [
        ("token_count", "output", 900, "0.0135")
    ]


def test_estimates_give_no_more_than_they_have() -> None:
    guess = rows(provenance=Provenance.ESTIMATED, rows=1, usage=Meters(output=300))

    assert causes(billed(SAME[0], "output,199000,2.985"), rows(), guess) == [
        ("estimated", "output", -300, "-0.0045"),
        ("token_count", "output", -1000, "-0.015"),
    ]


def test_figures_that_the_answers_told_and_nobody_booked_are_recognised() -> None:
    ours = rows(provenance=Provenance.COUNTED, told=Meters(input=1_000_500, output=200_010))

    assert causes(billed("input,1000500,3.0015", "output,200010,3.00015"), ours) == [
        ("token_count", "input", 500, "0.0015"),
        ("token_count", "output", 10, "0.00015"),
    ]


def test_a_line_billed_twice_is_one_although_prices_agree() -> None:
    assert causes(billed(SAME[0], SAME[0], SAME[1]), rows()) == [
        ("billed_twice", "input", 1_000_000, "3")
    ]


def test_what_is_on_one_side_only_is_that_side_s() -> None:
    other = rows(day="2026-10-15")

    first, second = compare(billed(*SAME), [other])

    assert {c.cause for c in first.causes} == {"not_metered"}
    assert {c.cause for c in second.causes} == {"not_billed"}
    assert by_cause([first, second]) == {"not_billed": -6 * 10**12, "not_metered": 6 * 10**12}


def test_charges_that_are_no_tokens_and_the_bill_s_own_rounding_are_apart() -> None:
    bill = billed("input,1000000,3.00", "output,200001,3.00", "other,7,0.07")

    assert causes(bill, rows(usage=Meters(input=1_000_000, output=200_001))) == [
        ("other_charge", "other", 7, "0.07"),
        ("rounding", "output", 0, "-0.000015"),
    ]


def test_what_we_have_no_cost_price_of_is_said_to_be_unpriced() -> None:
    assert causes(billed(*SAME), rows(card=None)) == [
        ("unpriced", "input", 1_000_000, "3"),
        ("unpriced", "output", 200_000, "3"),
    ]


def test_two_prices_of_one_day_are_both_kept() -> None:
    dear = sealed_card("USD", [Rate(Meter.INPUT, 4_000_000, "i"), Rate(Meter.OUTPUT, 1, "o")])
    half = Meters(input=500_000)
    later = rows(usage=half, card=dear, cost_picos=rate(half, dear))

    assert causes(billed("input,1000000,3.50"), rows(usage=half), later) == []


def test_a_repeated_line_that_was_metered_twice_is_no_fault() -> None:
    lines = (BillLine(DAY, "smol", "input", 2, 6_000_000, 2, 1, 3_000_000),)
    bill = Bill(currency="USD", decimals=6, rows=2, lines=lines)

    assert causes(bill, rows(usage=Meters(input=2))) == []


def test_tokens_of_tenants_in_another_currency_are_no_fault_of_counting() -> None:
    half = Meters(input=500_000, output=100_000)
    theirs = rows(usage=half, card=None, cost_picos=0, elsewhere=True)

    assert causes(billed(*SAME), rows(usage=half), theirs) == [
        ("other_currency", "input", 500_000, "1.5"),
        ("other_currency", "output", 100_000, "1.5"),
    ]
    assert causes(billed("input,500010,1.50003", SAME[1]), theirs) == [
        ("other_currency", "input", 500_000, "1.5"),
        ("token_count", "input", 10, "0.00003"),
        ("other_currency", "output", 100_000, "1.5"),
        ("token_count", "output", 100_000, "1.5"),
    ]


def test_a_count_that_differs_beside_another_currency_keeps_its_own_cause() -> None:
    half = Meters(input=500_000)
    theirs = rows(usage=half, card=None, cost_picos=0, elsewhere=True)

    assert causes(billed("input,1000100,3.0003"), rows(usage=half), theirs) == [
        ("token_count", "input", 100, "0.0003"),
        ("other_currency", "input", 500_000, "1.5"),
    ]


def test_half_a_unit_of_the_bills_last_decimal_a_line_is_rounding_and_more_is_a_price() -> None:
    """3.00 and 3.00, told to two decimals."""
    near = rows(cost_picos=3 * 10**12, usage=Meters(input=1_000_000))

    def told(picos_off: int) -> list[str]:
        card = sealed_card("USD", [Rate(Meter.INPUT, 3_000_000 + picos_off, "i")])
        mine = rows(usage=near.usage, card=card, cost_picos=3 * 10**12 + picos_off * 10**6)
        return [cause for cause, *_ in causes(billed("input,1000000,3.00"), mine)]

    assert told(5_000) == ["rounding"]
    assert told(5_001) == ["price"]
    assert told(-5_000) == ["rounding"]


def test_an_estimate_that_lost_is_counted_among_what_lost() -> None:
    lost = rows(provenance=Provenance.ESTIMATED, winner=False, rows=1, usage=Meters(input=40))

    (each,) = compare(billed("input,1000040,3.00012", SAME[1]), [rows(), lost])

    assert (each.losing_tokens, each.estimated_tokens, each.causes) == (40, 0, ())


def test_what_was_billed_a_million_is_told_to_the_nearest_millionth() -> None:
    mine = rows(usage=Meters(input=3))

    (each,) = compare(billed("input,3,0.000000000002"), [mine])

    assert [cause.billed_per_million for cause in each.causes] == ["0.000001"]
