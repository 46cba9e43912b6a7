"""Whatever was billed and whatever was metered: the causes of a gap add up to it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.meters import METERS, Meter, Meters, Provenance
from billing.prices import Rate, sealed_card
from billing.provider_bills import BILLED_METERS, Bill, BillLine
from billing.rating import rate
from billing.reconciliation import CAUSES, Metered, by_cause, compare

DAYS, MODELS = st.sampled_from(("2026-10-01", "2026-10-02")), st.sampled_from(("a", "b"))
TOKENS = st.integers(0, 50)
CARDS = st.none() | st.builds(
    lambda picos: sealed_card(
        "USD", [Rate(Meter.INPUT, picos, "i"), Rate(Meter.OUTPUT, 2 * picos, "o")]
    ),
    st.integers(0, 3),
)
METERED = st.builds(
    lambda day, model, source, winner, card, usage, told: Metered(
        day=day,
        model=model,
        provenance=source,
        winner=winner,
        card=card,
        rows=1,
        usage=Meters(*usage),
        told=Meters(*told),
        cost_picos=0 if card is None else rate(Meters(*usage), card),
    ),
    DAYS,
    MODELS,
    st.sampled_from(Provenance),
    st.booleans(),
    CARDS,
    st.tuples(*(TOKENS for _ in METERS)),
    st.tuples(*(TOKENS for _ in METERS)),
)
LINES = st.builds(
    BillLine,
    DAYS,
    MODELS,
    st.sampled_from(BILLED_METERS),
    st.integers(-5, 200),
    st.integers(-10, 500),
    st.integers(1, 3),
    st.integers(0, 20),
    st.integers(0, 20),
)


@settings(max_examples=150)
@given(
    st.lists(LINES, max_size=12, unique_by=lambda line: (line.day, line.model, line.meter)),
    st.lists(METERED, max_size=8),
)
def test_the_causes_of_every_gap_add_up_to_it(lines: list[BillLine], rows: list[Metered]) -> None:
    bill = Bill(currency="USD", decimals=12, rows=len(lines), lines=tuple(lines))

    found = compare(bill, rows)

    for each in found:
        assert sum(cause.amount_picos for cause in each.causes) == each.gap_picos
        assert {cause.cause for cause in each.causes} <= set(CAUSES)
        moved = {"losing_attempts", "estimated", "token_count", "billed_twice"}
        shift = sum(cause.tokens for cause in each.causes if cause.cause in moved)
        if each.billed_tokens and each.metered_tokens:
            assert shift == each.billed_tokens - each.metered_tokens
    billed = sum(line.amount_picos for line in lines)
    metered = sum(row.cost_picos for row in rows)
    assert sum(by_cause(found).values()) == billed - metered
