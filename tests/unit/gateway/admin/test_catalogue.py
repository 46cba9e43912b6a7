"""A catalogue's price becomes exact amounts per meter, and says what it leaves out."""

import pytest

from billing.meters import Meter
from billing.service_tiers import ServiceTier
from gateway.admin.catalogue import MeterAmount, SecondSource, disagreements
from gateway.admin.offers import UnknownModelError, look_up
from gateway.clock import parse_rfc3339

NOW_US = parse_rfc3339("2026-11-21T12:00:00Z")


def test_every_meter_of_a_model_is_read_exactly() -> None:
    offer = look_up("anthropic", "claude-opus-5-5", NOW_US)

    assert offer.amounts == {
        Meter.INPUT: "4",
        Meter.CACHE_READ: "0.2",
        Meter.CACHE_WRITE_5M: "5",
        Meter.CACHE_WRITE_1H: "8",
        Meter.OUTPUT: "20",
    }


def test_the_price_is_that_of_the_day_it_is_asked_for() -> None:
    before = look_up("openai", "gpt-5.6-sol", parse_rfc3339("2026-08-20T00:00:00Z"))
    after = look_up("openai", "gpt-5.6-sol", parse_rfc3339("2026-08-21T00:00:00Z"))

    assert (before.amounts[Meter.INPUT], after.amounts[Meter.INPUT]) == ("5", "4")
    assert any("other prices from 2026-08-21 on" in note for note in before.notes)
    assert not any("other prices" in note for note in after.notes)


def test_a_price_by_the_time_of_day_is_named() -> None:
    notes = look_up("deepseek", "deepseek-chat", NOW_US).notes

    assert any("depends on the time of day" in note for note in notes)


def test_what_larger_prompts_cost_comes_with_the_price() -> None:
    offer = look_up("google", "gemini-2.5-pro", NOW_US)

    tiers = {
        meter: [(tier.above_tokens, tier.amount_per_million) for tier in found]
        for meter, found in offer.tiers.items()
    }
    assert tiers == {
        Meter.INPUT: [(200_000, "2.5")],
        Meter.CACHE_READ: [(200_000, "0.25")],
        Meter.OUTPUT: [(200_000, "15")],
    }


def test_aliases_and_foreign_meters_are_named() -> None:
    notes = " ".join(look_up("openai", "gpt-5.6", NOW_US).notes)

    assert "'gpt-5.6' as 'gpt-5.6-sol'" in notes
    assert "web_searches_kcount" in notes


def test_the_source_proves_which_data_was_read() -> None:
    source = look_up("anthropic", "claude-opus-5-5", NOW_US).source

    assert source.startswith("genai-prices 0.2.3 sha256:")
    assert source.endswith("anthropic/claude-opus-5-5 on 2026-11-21")


@pytest.mark.parametrize(("provider", "model"), [("openai", "no-such"), ("nobody", "gpt-4o")])
def test_an_unknown_model_has_no_price_rather_than_zero(provider: str, model: str) -> None:
    with pytest.raises(UnknownModelError):
        look_up(provider, model, NOW_US)


def test_other_tiers_come_by_the_flag_that_the_catalogue_knows_them_by() -> None:
    offer = look_up("openai", "gpt-5", NOW_US)

    found: dict[ServiceTier, dict[Meter, str]] = {}
    for tier, meter, amount, _ in offer.each():
        found.setdefault(tier, {})[meter] = amount
    assert found == {
        tier: dict(zip((Meter.INPUT, Meter.CACHE_READ, Meter.OUTPUT), amounts, strict=True))
        for tier, amounts in (
            (ServiceTier.STANDARD, ("1.25", "0.125", "10")),
            (ServiceTier.BATCH, ("0.625", "0.0625", "5")),
            (ServiceTier.FLEX, ("0.625", "0.0625", "5")),
            (ServiceTier.PRIORITY, ("2.5", "0.25", "20")),
        )
    }
    assert "service_tier fast: has prices of its own, which no tier of ours is for" in offer.notes
    early = look_up("openai", "gpt-5", parse_rfc3339("2026-10-11T00:00:00Z"))
    assert ServiceTier.FLEX not in early.others


def test_a_second_source_is_held_against_the_tiers_that_it_tells_of() -> None:
    offer = look_up("openai", "gpt-5", NOW_US)
    standard = [
        MeterAmount(meter=meter, amount_per_million=amount)
        for meter, amount in offer.amounts.items()
    ]
    batch = MeterAmount(
        meter=Meter.INPUT, service_tier=ServiceTier.BATCH, amount_per_million="0.63"
    )

    def told(*amounts: MeterAmount) -> dict[tuple[ServiceTier, Meter], str]:
        return disagreements(offer, SecondSource(name="the page", amounts=amounts))

    assert told(*standard) == {}
    assert told(*standard, batch) == {
        (ServiceTier.BATCH, Meter.INPUT): "the page asks 0.63",
        (ServiceTier.BATCH, Meter.CACHE_READ): "the page asks nothing that it told",
        (ServiceTier.BATCH, Meter.OUTPUT): "the page asks nothing that it told",
    }
