"""What a tenant pays less than the list."""

import pytest

from billing.discounts import Discount, parse_percent
from billing.meters import Meter
from billing.prices import ContextTier, PriceBook, PriceVersion
from billing.quantity import Schedule, Step
from tests.unit.billing.samples import HOUR_US, list_price


def off(percent: str, **changes: object) -> Discount:
    fields = {"id": "discount_1", "tenant_id": "t1", "effective_from_us": 0}
    return Discount(percent_e4=parse_percent(percent), **(fields | changes))  # type: ignore[arg-type]


def prices_of(
    *discounts: Discount, at_us: int = 1, versions: tuple[PriceVersion, ...] = ()
) -> list[tuple[int, str]]:
    book = PriceBook(versions or (INPUT, OUTPUT), discounts)
    bands = book.charge_bands("t1", "chat-default", at_us)
    return [(rate.picos_per_token, rate.version) for band in bands for rate in band.card.rates]


INPUT = list_price(id="p_in")
OUTPUT = list_price(id="p_out", meter=Meter.OUTPUT, picos_per_token=15_000_000)


def test_a_share_of_the_list_is_taken_off_and_the_version_says_so() -> None:
    assert prices_of(off("12.5")) == [(2_625_000, "p_in-12.5%"), (13_125_000, "p_out-12.5%")]


def test_what_the_list_asks_for_stands_beside_what_is_left() -> None:
    card = PriceBook([INPUT], [off("10")]).charge_card("t1", "chat-default", 1)

    assert card is not None
    (rate,) = card.rates
    assert (rate.picos_per_token, rate.list_picos) == (2_700_000, 3_000_000)


def test_what_is_closer_to_the_price_goes_first_and_nothing_adds_up() -> None:
    general, of_meter = off("10"), off("20", meter=Meter.OUTPUT)
    of_model = off("30", model="chat-default")
    none = off("0", model="chat-default", meter=Meter.INPUT)

    assert prices_of(general, of_meter) == [(2_700_000, "p_in-10%"), (12_000_000, "p_out-20%")]
    assert prices_of(general, of_meter, of_model) == [
        (2_100_000, "p_in-30%"), (10_500_000, "p_out-30%"),
    ]  # fmt: skip
    assert prices_of(general, of_model, none)[0] == (3_000_000, "p_in")
    assert prices_of(off("50", model="another")) == [(3_000_000, "p_in"), (15_000_000, "p_out")]


def test_it_holds_from_its_instant_until_the_next_begins() -> None:
    chain = off("10", effective_from_us=HOUR_US), off("0", effective_from_us=2 * HOUR_US)

    assert prices_of(*chain, at_us=HOUR_US - 1)[0] == (3_000_000, "p_in")
    assert prices_of(*chain, at_us=HOUR_US)[0] == (2_700_000, "p_in-10%")
    assert prices_of(*chain, at_us=2 * HOUR_US)[0] == (3_000_000, "p_in")
    assert PriceBook([INPUT], chain).next_change_us(1) == HOUR_US


def test_a_contract_price_stands_and_other_tenants_pay_the_list() -> None:
    contract = list_price(id="p_contract", tenant_id="t1", picos_per_token=2_000_000)

    assert prices_of(off("10"), versions=(INPUT, OUTPUT, contract)) == [
        (2_000_000, "p_contract"), (13_500_000, "p_out-10%"),
    ]  # fmt: skip
    book = PriceBook([INPUT], [off("10")])
    assert book.charge_card("t2", "chat-default", 1) == PriceBook([INPUT]).charge_card(
        "t2", "chat-default", 1
    )
    assert book.charge_bands("t1", "unknown", 1) == ()


def test_every_tier_is_discounted() -> None:
    by_prompt = list_price(id="p", context_tiers=(ContextTier(200_000, 6_000_000),))
    steps = Schedule("graduated", (Step(0, 3_000_000), Step(10_000_000, 2_000_000)))
    by_month = list_price(id="p", schedule=steps)

    assert prices_of(off("10"), versions=(by_prompt,)) == [
        (2_700_000, "p-10%"), (5_400_000, "p>200000-10%"),
    ]  # fmt: skip
    card = PriceBook([by_month], [off("10")]).charge_card("t1", "chat-default", 1)
    assert card is not None
    assert card.rates[0].schedule == Schedule(
        "graduated", (Step(0, 2_700_000), Step(10_000_000, 1_800_000))
    )


def test_what_is_left_is_rounded_up_to_a_whole_pico_a_token() -> None:
    assert off("33.3333").off(1) == 1
    assert off("33.3333").off(1_000_000) == 666_667
    assert off("100").off(3) == 0


@pytest.mark.parametrize("text", ["100.0001", "-1", "1.00001", "ten"])
def test_a_percentage_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"percent|decimal"):
        parse_percent(text)
