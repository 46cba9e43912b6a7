"""Prices by the service tier that a request asks for, and is served in."""

import pytest

from billing.discounts import Discount
from billing.markups import marked_up
from billing.meters import Meter, Meters
from billing.prices import (
    ContextTier,
    PriceBook,
    PriceVersion,
    can_price,
    card_for,
    picos_per_token,
)
from billing.quantity import Schedule, Step
from billing.rating import lines, rate
from billing.service_tiers import (
    AUTO,
    ServiceTier,
    asked_tier,
    billed_tier,
    served_tier,
    tier_of,
)
from tests.unit.billing.samples import cost_price, list_price

STANDARD, BATCH, FLEX, PRIORITY = ServiceTier


def price(tier: ServiceTier, meter: Meter, per_million: str, **changes: object) -> PriceVersion:
    fields = {
        "id": f"{tier.value}_{meter.value}",
        "meter": meter,
        "picos_per_token": picos_per_token(per_million),
        "service_tier": tier,
    }
    return list_price(**(fields | changes))


BOOK = PriceBook(
    [
        price(STANDARD, Meter.INPUT, "3"),
        price(STANDARD, Meter.OUTPUT, "15"),
        price(PRIORITY, Meter.INPUT, "6"),
        price(PRIORITY, Meter.OUTPUT, "30"),
        price(BATCH, Meter.INPUT, "1.5"),
    ]
)


@pytest.mark.parametrize(
    ("name", "asked", "served"),
    [
        ("auto", AUTO, None),
        ("default", STANDARD, STANDARD),
        ("standard", STANDARD, STANDARD),
        ("standard_only", STANDARD, None),
        ("on_demand", None, STANDARD),
        ("batch", BATCH, BATCH),
        ("flex", FLEX, FLEX),
        ("priority", PRIORITY, PRIORITY),
        ("scale", None, None),
        ("Priority", None, None),
        ("", None, None),
    ],
)
def test_what_providers_call_their_tiers_is_one_of_ours_or_nothing(
    name: str, asked: str | None, served: ServiceTier | None
) -> None:
    assert asked_tier(name) == asked
    assert served_tier(name) is served


def test_a_tier_has_prices_of_its_own_and_no_other_stands_in_for_them() -> None:
    card = BOOK.charge_card("t1", "chat-default", 1, "USD", PRIORITY)

    assert card is not None
    assert [
        (line.picos_per_token, line.version) for line in lines(Meters(input=1, output=1), card)
    ] == [
        (6_000_000, "priority_input@priority"),
        (30_000_000, "priority_output@priority"),
    ]
    assert BOOK.charge_card("t1", "chat-default", 1, "USD", FLEX) is None
    assert BOOK.tiers == {PRIORITY, BATCH}
    batch = BOOK.charge_card("t1", "chat-default", 1, "USD", BATCH)
    assert batch is not None
    assert not can_price(batch, with_output=True)


def test_the_standard_card_does_not_know_of_other_tiers() -> None:
    alone = PriceBook([price(STANDARD, Meter.INPUT, "3"), price(STANDARD, Meter.OUTPUT, "15")])

    assert BOOK.charge_card("t1", "chat-default", 1) == alone.charge_card("t1", "chat-default", 1)
    assert alone.tiers == frozenset()


def test_a_contract_in_one_tier_says_nothing_of_the_others() -> None:
    contract = price(STANDARD, Meter.INPUT, "1", tenant_id="t1", id="contract")
    book = PriceBook(
        [price(STANDARD, Meter.INPUT, "3"), price(PRIORITY, Meter.INPUT, "6"), contract]
    )

    found = [
        book.charge_card("t1", "chat-default", 1, "USD", tier) for tier in (STANDARD, PRIORITY)
    ]

    assert [card.rates[0].picos_per_token for card in found if card] == [1_000_000, 6_000_000]


def test_a_discount_is_taken_off_the_list_of_every_tier() -> None:
    off = Discount("d1", "t1", 125_000, 0)
    book = PriceBook([price(PRIORITY, Meter.INPUT, "6")], [off])

    card = book.charge_card("t1", "chat-default", 1, "USD", PRIORITY)

    assert card is not None
    assert card.rates[0].picos_per_token == 5_250_000
    assert card.rates[0].version == "priority_input@priority-12.5%"


def test_sizes_of_prompts_have_their_prices_inside_a_tier() -> None:
    above = (ContextTier(200_000, picos_per_token("12")),)
    book = PriceBook([price(PRIORITY, Meter.INPUT, "6", context_tiers=above)])
    bands = book.charge_bands("t1", "chat-default", 1, "USD", PRIORITY)

    small, large = (Meters(input=tokens) for tokens in (200_000, 200_001))

    assert rate(small, card_for(bands, 200_000)) == 1_200_000_000_000
    assert rate(large, card_for(bands, 200_001)) == 2_400_012_000_000
    assert card_for(bands, 200_001).rates[0].version == "priority_input@priority>200000"


def test_the_quantity_of_a_month_is_counted_tier_by_tier() -> None:
    schedule = Schedule("graduated", (Step(0, 6_000_000), Step(1_000, 5_000_000)))
    plain = Schedule("graduated", (Step(0, 3_000_000), Step(1_000, 2_000_000)))
    book = PriceBook(
        [
            price(PRIORITY, Meter.INPUT, "6", schedule=schedule),
            price(STANDARD, Meter.INPUT, "3", schedule=plain),
        ]
    )

    versions = {
        tier: card.rates[0].version
        for tier in (STANDARD, PRIORITY)
        if (card := book.charge_card("t1", "chat-default", 1, "USD", tier)) is not None
    }

    assert versions == {STANDARD: "standard_input", PRIORITY: "priority_input@priority"}


def test_what_a_box_costs_is_the_price_of_no_tier() -> None:
    box = cost_price(upstream_model=None, id="box")
    hosted = cost_price(service_tier=PRIORITY, id="hosted", picos_per_token=9)
    book = PriceBook([box, hosted])

    assert book.cost_card("be_1", "up", 1, "USD", FLEX) is None
    hosted_card = book.cost_card("be_1", "up", 1, "USD", PRIORITY)
    assert hosted_card is not None
    assert hosted_card.rates[0].picos_per_token == 9
    assert book.box_bands("be_1", 1, "USD")[0].card.rates[0].version == "box"
    assert marked_up(hosted_card, "2").rates[0].version == "hosted@priority*2"


@pytest.mark.parametrize(
    ("asked", "told", "billed"),
    [
        ("priority", "priority", PRIORITY),
        ("priority", "default", STANDARD),  # the backend had no room there
        ("priority", None, PRIORITY),  # it says nothing
        ("priority", "auto", PRIORITY),  # nor does this
        ("priority", "scale", PRIORITY),
        ("standard", "priority", PRIORITY),  # dearer than asked: billed as served
        ("standard", "flex", STANDARD),  # served in a tier that has no price
        ("auto", "priority", PRIORITY),
        ("auto", None, STANDARD),
    ],
)
def test_the_tier_that_was_served_is_billed_where_it_is_known_and_priced(
    asked: str, told: str | None, billed: ServiceTier
) -> None:
    assert billed_tier(asked, told, {STANDARD, PRIORITY}) is billed


@pytest.mark.parametrize(
    ("version", "tier"),
    [
        ("price_01", STANDARD),
        ("price_01>200000", STANDARD),
        ("price_01@priority", PRIORITY),
        ("price_01@batch>200000-12.5%", BATCH),
        ("price_01@flex+10000000", FLEX),
        ("price_01@priority*1.25", PRIORITY),
    ],
)
def test_a_version_says_its_tier(version: str, tier: ServiceTier) -> None:
    assert tier_of(version) is tier
