"""Laws of prices by quantity: what comes first makes no difference, and all parts are the whole."""

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.quantity import Schedule, Step, between, billed
from tests.unit.billing.samples import charge_picos

TOKENS = st.integers(0, 3_000)
relaxed = settings(deadline=None)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    edges = sorted(draw(st.sets(st.integers(1, 5_000), max_size=4)))
    steps = tuple(Step(above, draw(st.integers(0, 50))) for above in (0, *edges))
    return Schedule(draw(st.sampled_from(["graduated", "volume"])), steps)


@relaxed
@given(schedules(), st.lists(TOKENS, max_size=8), st.randoms(use_true_random=False))
def test_a_month_comes_to_the_same_in_any_order(
    schedule: Schedule, calls: list[int], shuffler: object
) -> None:
    shuffled = list(calls)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    total = come = 0
    for tokens in shuffled:
        come += sum(part.amount_picos for part in between(schedule, total, total + tokens))
        total += tokens

    assert come == charge_picos(schedule, sum(calls))


@st.composite
def months(draw: st.DrawFn) -> list[dict[str, int]]:
    """What each invoice of a month brings, by payer. Sometimes usage is taken back, but no payer
    ever has less than nothing.
    """
    found: list[dict[str, int]] = []
    held = dict.fromkeys("abc", 0)
    for _ in range(draw(st.integers(1, 4))):
        new = {payer: draw(st.integers(-had // 2, 2_000)) for payer, had in held.items()}
        held = {payer: had + new[payer] for payer, had in held.items()}
        found.append(new)
    return found


@relaxed
@given(schedules(), months())
def test_however_a_month_is_cut_into_invoices_they_come_to_its_total(
    schedule: Schedule, invoices: list[dict[str, int]]
) -> None:
    before = dict.fromkeys("abc", 0)
    amount = 0
    for new in invoices:
        parts = list(billed(schedule, new, before))
        for payer in new:
            mine = [part.quantity for whose, part in parts if whose == payer]
            assert sum(mine) == new[payer]
        amount += sum(part.amount_picos for _, part in parts)
        before = {payer: tokens + new[payer] for payer, tokens in before.items()}

    assert amount == charge_picos(schedule, sum(before.values()))


@relaxed
@given(schedules(), st.dictionaries(st.sampled_from("abcdef"), TOKENS))
def test_no_payer_has_less_than_nothing_of_a_step_and_never_more_than_was_booked(
    schedule: Schedule, new: dict[str, int]
) -> None:
    parts = list(billed(schedule, new, {}))

    assert all(part.quantity >= 0 for _, part in parts)
    amount = sum(part.amount_picos for _, part in parts)
    assert amount <= sum(new.values()) * schedule.dearest_picos


@relaxed
@given(schedules(), months(), st.data())
def test_an_invoice_that_is_voided_and_made_anew_leaves_the_month_at_its_total(
    schedule: Schedule, invoices: list[dict[str, int]], data: st.DataObject
) -> None:
    before, made = dict.fromkeys("abc", 0), []
    for new in invoices:
        made.append((new, list(billed(schedule, new, before))))
        before = {payer: had + new[payer] for payer, had in before.items()}
    voided, _ = made.pop(data.draw(st.integers(0, len(made) - 1)))
    left = {payer: had - voided[payer] for payer, had in before.items()}
    stood = dict.fromkeys((step.above_tokens for step in schedule.steps), 0)
    for _, parts in made:
        for _, part in parts:
            stood[part.step.above_tokens] += part.quantity

    again = list(billed(schedule, voided, left, stood))

    for payer, tokens in voided.items():
        assert sum(part.quantity for whose, part in again if whose == payer) == tokens
    standing = (part for _, parts in [*made, (voided, again)] for _, part in parts)
    assert sum(part.amount_picos for part in standing) == charge_picos(
        schedule, sum(before.values())
    )
