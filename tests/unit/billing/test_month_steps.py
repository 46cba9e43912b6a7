"""A month's steps are its own, whatever discounts begin or end in it."""

import pytest

from billing.invoices import Aggregate, draft
from billing.meters import Meter, Meters
from billing.money import format_picos
from billing.month_steps import over_booked
from billing.prices import Rate, sealed_card
from billing.quantity import Mode, Schedule, Step
from billing.rating import rate
from tests.unit.billing.samples import aggregate
from tests.unit.billing.test_invoices import NOVEMBER


def used(tokens: int, mode: Mode, version: str, *picos: int) -> Aggregate:
    steps = Schedule(mode, (Step(0, picos[0]), Step(1_000, picos[1])))
    card = sealed_card("USD", [Rate(Meter.INPUT, max(picos), version, steps)])
    return aggregate(card=card, meters=Meters(input=tokens))


def billed(*aggregates: Aggregate, before: tuple[Aggregate, ...] = ()) -> list[tuple[str, int]]:
    made = draft(
        aggregates, invoice_id="inv_1", currency="USD", period=NOVEMBER, before=before
    )  # fmt: skip
    return [(each.price_version, each.quantity) for each in made.lines if each.quantity]


def test_a_discount_that_begins_in_a_month_does_not_count_its_tokens_from_nothing() -> None:
    plain = used(500, "graduated", "p", 20, 10)
    less = used(1_500, "graduated", "p-12.5%", 18, 9)

    assert billed(plain, less) == [
        ("p", 250), ("p+1000", 250), ("p-12.5%", 750), ("p-12.5%+1000", 750)
    ]  # fmt: skip
    assert billed(less, before=(used(900, "graduated", "p", 20, 10),)) == [
        ("p-12.5%", 100), ("p-12.5%+1000", 1_400)
    ]  # fmt: skip


def test_a_volume_that_is_reached_with_a_discount_holds_for_what_was_used_before_it() -> None:
    plain = used(500, "volume", "p", 20, 10)
    less = used(600, "volume", "p-12.5%", 18, 9)

    assert billed(plain, less) == [("p+1000", 500), ("p-12.5%+1000", 600)]


def test_versions_of_a_price_count_by_themselves() -> None:
    older, newer = used(600, "graduated", "p", 20, 10), used(600, "graduated", "q", 18, 9)

    assert billed(older, newer) == [("p", 600), ("q", 600)]


@pytest.mark.parametrize("mode", ["graduated", "volume"])
def test_each_token_costs_what_its_own_version_asks_at_the_step(mode: Mode) -> None:
    parts = used(500, mode, "p", 20, 10), used(1_500, mode, "p-12.5%", 18, 9)
    made = draft(parts, invoice_id="inv_1", currency="USD", period=NOVEMBER)
    exact = sum(each.amount_picos for each in made.lines if each.quantity)

    graduated = 250 * 20 + 250 * 10 + 750 * 18 + 750 * 9
    assert format_picos(exact) == format_picos(
        graduated if mode == "graduated" else 500 * 10 + 1_500 * 9
    )


@pytest.mark.parametrize("mode", ["graduated", "volume"])
def test_a_minimum_is_measured_against_what_is_billed_with_a_discount_and_before_it(
    mode: Mode,
) -> None:
    parts = used(500, mode, "p", 20, 10), used(1_500, mode, "p-12.5%", 18, 9)
    made = draft(parts, invoice_id="inv_1", currency="USD", period=NOVEMBER)
    billed_picos = sum(each.amount_picos for each in made.lines if each.quantity)

    booked = sum(rate(each.meters, each.card) for each in parts)
    over = over_booked((each.card, each.meters) for each in parts)

    assert booked - over == billed_picos


@pytest.mark.parametrize("mode", ["graduated", "volume"])
def test_and_against_what_an_early_invoice_billed_before_the_discount(mode: Mode) -> None:
    early, late = used(900, mode, "p", 20, 10), used(1_500, mode, "p-12.5%", 18, 9)
    invoices = (
        draft([early], invoice_id="inv_1", currency="USD", period=NOVEMBER),
        draft([late], invoice_id="inv_2", currency="USD", period=NOVEMBER, before=[early]),
    )
    billed_picos = sum(x.amount_picos for made in invoices for x in made.lines if x.quantity)

    (was, earlier), (is_, later) = (
        (rate(each.meters, each.card), (each.card, each.meters)) for each in (early, late)
    )

    assert was + is_ - over_booked([later], before=[earlier]) == billed_picos
