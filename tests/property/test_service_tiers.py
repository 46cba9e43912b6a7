"""Whatever tiers are asked for and served, in whatever order their prices were written down: the
bill is the rate of the tier that was served, and no more than the hold where that was asked for.
"""

from hypothesis import given
from hypothesis import strategies as st

from billing.holds import worst_case
from billing.meters import Meter, Meters
from billing.money import counter_units
from billing.prices import ContextTier, PriceBook, card_for, reachable
from billing.rating import rate
from billing.service_tiers import AUTO, ServiceTier, billed_tier, served_tier, tier_of
from tests.unit.billing.samples import list_price

EDGE = 1_000
PICOS = st.integers(0, 10**9)
WORDS = [None, "auto", "default", "on_demand", "batch", "flex", "priority", "scale", "other"]


@st.composite
def books(draw: st.DrawFn) -> tuple[PriceBook, dict[tuple[ServiceTier, Meter, bool], int]]:
    """The standard tier and some others, each with its prices below and above an edge."""
    others = draw(st.sets(st.sampled_from(list(ServiceTier)[1:])))
    told: dict[tuple[ServiceTier, Meter, bool], int] = {}
    versions = []
    for tier in (ServiceTier.STANDARD, *others):
        for meter in (Meter.INPUT, Meter.OUTPUT):
            below, above = draw(PICOS), draw(PICOS)
            told |= {(tier, meter, False): below, (tier, meter, True): above}
            versions.append(
                list_price(
                    id=f"{tier}_{meter}",
                    meter=meter,
                    picos_per_token=below,
                    context_tiers=(ContextTier(EDGE, above),),
                    service_tier=tier,
                )
            )
    return PriceBook(draw(st.permutations(versions))), told


@given(
    books(),
    st.data(),
    st.sampled_from(WORDS),
    st.integers(1, 2 * EDGE),
    st.integers(0, 500),
    st.integers(0, 500),
)
def test_the_bill_is_the_rate_of_the_tier_that_was_served(
    given_book: tuple[PriceBook, dict[tuple[ServiceTier, Meter, bool], int]],
    data: st.DataObject,
    told: str | None,
    prompt: int,
    answer: int,
    slack: int,
) -> None:
    book, picos = given_book
    priced = {ServiceTier.STANDARD} | book.tiers
    asked = data.draw(st.sampled_from([AUTO, *sorted(priced)]))
    bands = {tier: book.charge_bands("t", "chat-default", 1, "USD", tier) for tier in priced}
    usage = Meters(input=prompt, output=answer)

    tier = billed_tier(asked, told, priced)
    card = card_for(bands[tier], usage.all_input)
    bill = rate(usage, card)

    served = served_tier(told)
    if served in priced:
        assert tier is served
    else:
        assert tier == (ServiceTier.STANDARD if asked == AUTO else asked)
    size = prompt > EDGE
    assert bill == (
        prompt * picos[tier, Meter.INPUT, size] + answer * picos[tier, Meter.OUTPUT, size]
    )
    assert {tier_of(each.version) for each in card.rates} == {tier}
    eligible = priced if asked == AUTO else {ServiceTier(asked)}
    if tier in eligible:
        cards = [card for each in eligible for card in reachable(bands[each], prompt + slack)]
        hold = worst_case(prompt + slack, cards, "USD").total(answer + slack)
        assert counter_units(bill, "USD") <= hold
