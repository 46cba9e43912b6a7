"""Laws of rating: linear, exact, and never above the hold."""

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.discounts import Discount
from billing.holds import worst_case
from billing.markups import marked_up
from billing.meters import METERS, Meter, Meters
from billing.money import counter_units
from billing.prices import (
    Band,
    PriceBook,
    PriceVersion,
    Rate,
    RateCard,
    card_for,
    reachable,
    sealed_card,
)
from billing.rating import lines, rate

TOKENS = st.integers(0, 2_000_000)
PRICES = st.integers(0, 10**9)  # picos per token: up to 1,000 a million tokens
ALL_METERS = st.builds(Meters, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)
relaxed = settings(deadline=None)


@st.composite
def cards(draw: st.DrawFn) -> RateCard:
    priced = {Meter.INPUT, Meter.OUTPUT} | draw(st.sets(st.sampled_from(METERS)))
    return sealed_card("USD", [Rate(meter, draw(PRICES), f"v_{meter}") for meter in priced])


@relaxed
@given(st.lists(ALL_METERS, max_size=6), cards())
def test_a_sum_is_rated_as_the_sum_of_its_parts(parts: list[Meters], card: RateCard) -> None:
    together = sum(parts, start=Meters())

    assert rate(together, card) == sum(rate(part, card) for part in parts)


@relaxed
@given(ALL_METERS, cards())
def test_lines_are_the_whole_of_a_charge(usage: Meters, card: RateCard) -> None:
    rated = lines(usage, card)

    assert sum(line.amount_picos for line in rated) == rate(usage, card)
    assert sum(line.quantity for line in rated) == usage.total
    assert all(line.amount_picos == line.quantity * line.picos_per_token for line in rated)


@relaxed
@given(st.lists(cards(), min_size=1, max_size=4), ALL_METERS, st.data())
def test_no_charge_on_any_card_of_the_plan_exceeds_the_hold(
    plan: list[RateCard], usage: Meters, data: st.DataObject
) -> None:
    served = data.draw(st.sampled_from(plan))
    bound = usage.all_input + data.draw(TOKENS)

    worst = worst_case(bound, plan, "USD")

    assert counter_units(rate(usage, served), "USD") <= worst.total(usage.output)


@st.composite
def all_bands(draw: st.DrawFn) -> list[Band]:
    edges = draw(st.sets(st.integers(1, 8_000_000), max_size=3))
    return [Band(above, draw(cards())) for above in (0, *sorted(edges))]


@relaxed
@given(all_bands(), ALL_METERS, TOKENS)
def test_no_charge_in_any_context_tier_exceeds_the_hold(
    bands: list[Band], usage: Meters, slack: int
) -> None:
    bound = usage.all_input + slack

    worst = worst_case(bound, reachable(bands, bound), "USD")

    charged = rate(usage, card_for(bands, usage.all_input))
    assert counter_units(charged, "USD") <= worst.total(usage.output)


@relaxed
@given(ALL_METERS, cards(), st.integers(1, 5_000_000))
def test_a_markup_never_charges_less_than_it_says_and_at_most_a_pico_a_token_more(
    usage: Meters, cost_card: RateCard, millionths: int
) -> None:
    markup = f"{millionths // 10**6}.{millionths % 10**6:06d}"

    over = rate(usage, marked_up(cost_card, markup)) * 10**6 - rate(usage, cost_card) * millionths

    assert 0 <= over <= usage.total * 10**6


@relaxed
@given(PRICES, st.integers(0, 100 * 10**4))
def test_a_discount_never_gives_more_than_it_says_and_at_most_a_pico_a_token_less(
    price: int, percent_e4: int
) -> None:
    over = Discount("d", "t", percent_e4, 0).off(price) * 10**6 - price * (10**6 - percent_e4)

    assert 0 <= over < 10**6


STARTS = st.integers(0, 50)


@st.composite
def price_lists(draw: st.DrawFn) -> list[PriceVersion]:
    return [
        PriceVersion(
            id=f"price_{index:02d}",
            book="charge",
            model="m",
            tenant_id=draw(st.sampled_from([None, "t1"])),
            backend_id=None,
            upstream_model=None,
            meter=draw(st.sampled_from(METERS)),
            picos_per_token=draw(PRICES),
            currency="USD",
            effective_from_us=draw(STARTS),
        )
        for index in range(draw(st.integers(0, 12)))
    ]


@relaxed
@given(price_lists(), STARTS, st.randoms(use_true_random=False))
def test_a_price_is_the_latest_that_has_begun_and_the_contract_goes_first(
    versions: list[PriceVersion], at_us: int, shuffler: object
) -> None:
    shuffled = list(versions)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    expected = {}
    for tenant_id in (None, "t1"):
        for version in sorted(versions, key=lambda v: (v.effective_from_us, v.id)):
            if version.tenant_id == tenant_id and version.effective_from_us <= at_us:
                expected[version.meter] = version.id

    found = PriceBook(shuffled).charge_card("t1", "m", at_us)

    if Meter.INPUT in expected:
        assert found is not None
        assert {rate.meter: rate.version for rate in found.rates} == expected
    else:
        assert found is None


@relaxed
@given(price_lists(), STARTS, STARTS)
def test_a_card_stays_right_until_the_next_change(
    versions: list[PriceVersion], read_at_us: int, later_us: int
) -> None:
    book = PriceBook(versions)
    until = book.next_change_us(read_at_us)

    if later_us >= read_at_us and (until is None or later_us < until):
        assert book.charge_card("t1", "m", later_us) == book.charge_card("t1", "m", read_at_us)
