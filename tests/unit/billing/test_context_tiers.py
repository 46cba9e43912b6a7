"""Prices that depend on the size of the prompt: a request is on one card as a whole."""

import pytest

from billing.meters import Meter, Meters
from billing.prices import (
    Band,
    ContextTier,
    PriceBook,
    PriceVersion,
    card_for,
    picos_per_token,
    reachable,
)
from billing.rating import lines, rate
from tests.unit.billing.samples import card, list_price


def tiered(meter: Meter, below: str, above: str, **changes: object) -> PriceVersion:
    fields = {
        "id": f"price_{meter.value}",
        "meter": meter,
        "picos_per_token": picos_per_token(below),
        "context_tiers": (ContextTier(200_000, picos_per_token(above)),),
    }
    return list_price(**(fields | changes))


def bands(*versions: PriceVersion) -> tuple[Band, ...]:
    return PriceBook(versions).charge_bands("t1", "chat-default", 1)


@pytest.mark.parametrize(
    ("prompt", "picos"), [(200_000, 250_000_000_000), (200_001, 500_002_500_000)]
)
def test_one_token_beyond_the_edge_puts_the_whole_request_in_the_next_tier(
    prompt: int, picos: int
) -> None:
    book = bands(tiered(Meter.INPUT, "1.25", "2.50"), tiered(Meter.OUTPUT, "10", "15"))
    usage = Meters(input=prompt)

    assert rate(usage, card_for(book, usage.all_input)) == picos


def test_cached_tokens_count_for_the_size_and_the_answer_goes_with_the_prompt() -> None:
    book = bands(
        tiered(Meter.INPUT, "1.25", "2.50"),
        tiered(Meter.CACHE_READ, "0.125", "0.25"),
        tiered(Meter.OUTPUT, "10", "15"),
    )
    usage = Meters(input=1, cache_read=200_000, output=10)

    rated = lines(usage, card_for(book, usage.all_input))

    assert [(line.meter, line.picos_per_token, line.version) for line in rated] == [
        ("input", 2_500_000, "price_input>200000"),
        ("cache_read", 250_000, "price_cache_read>200000"),
        ("output", 15_000_000, "price_output>200000"),
    ]


def test_meters_may_have_edges_of_their_own() -> None:
    output = tiered(
        Meter.OUTPUT, "10", "15", context_tiers=(ContextTier(50, 11), ContextTier(300_000, 12))
    )
    found = bands(tiered(Meter.INPUT, "1", "2"), output)

    assert [band.above_tokens for band in found] == [0, 50, 200_000, 300_000]
    assert [rate.version for rate in found[2].card.rates] == [
        "price_input>200000", "price_output>50",
    ]  # fmt: skip


def test_a_contract_price_brings_its_own_tiers_and_leaves_those_of_the_list() -> None:
    listed = tiered(Meter.INPUT, "1", "2"), tiered(Meter.OUTPUT, "10", "15")
    contract = list_price(id="price_c", tenant_id="t1", meter=Meter.INPUT, picos_per_token=7)

    found = bands(*listed, contract)

    assert [rate.version for rate in found[-1].card.rates] == ["price_c", "price_output>200000"]


def test_a_price_without_tiers_has_the_card_it_always_had() -> None:
    flat = list_price(), list_price(id="price_02", meter=Meter.OUTPUT)
    book = PriceBook(flat)

    assert book.charge_bands("t1", "chat-default", 1) == (
        Band(0, book.charge_card("t1", "chat-default", 1)),  # type: ignore[arg-type]
    )
    assert book.charge_bands("t1", "unknown", 1) == ()


def test_a_bound_reaches_every_tier_below_it() -> None:
    found = (Band(0, card(input="3")), Band(100, card(input="1")), Band(200, card(input="9")))

    assert reachable(found, 100) == [found[0].card]
    assert reachable(found, 101) == [found[0].card, found[1].card]
    assert reachable(found, 0) == [found[0].card]
