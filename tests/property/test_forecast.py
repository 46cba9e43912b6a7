"""Laws of a forecast: repeatable, in order, and never below what is spent."""

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.forecast import LEAST_DAYS, forecast

relaxed = settings(deadline=None, max_examples=40)
DAYS = st.lists(st.integers(0, 10**15), min_size=1, max_size=70)
AHEAD = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 10**6)), max_size=31)


@relaxed
@given(DAYS, st.integers(0, 6), AHEAD, st.integers(0, 10**16))
def test_bounds_are_in_order_and_never_below_what_is_spent(
    days: list[int], first: int, ahead: list[tuple[int, int]], spent: int
) -> None:
    found = forecast(days, first, ahead, spent)

    assert found is not None
    assert spent <= found.low_picos <= found.middle_picos <= found.high_picos
    assert found.claimed is (sum(day > 0 for day in days[-56:]) >= LEAST_DAYS)
    assert forecast(days, first, ahead, spent) == found


@relaxed
@given(DAYS, st.integers(0, 6), AHEAD, st.integers(0, 10**15), st.integers(0, 10**15))
def test_what_is_spent_already_moves_all_bounds_alike(
    days: list[int], first: int, ahead: list[tuple[int, int]], spent: int, more: int
) -> None:
    one, other = forecast(days, first, ahead, spent), forecast(days, first, ahead, spent + more)

    assert one is not None
    assert other is not None
    assert other.low_picos - one.low_picos == other.high_picos - one.high_picos == more


@relaxed
@given(DAYS, st.integers(0, 6), AHEAD)
def test_at_the_end_of_the_window_nothing_is_left_to_guess(
    days: list[int], first: int, ahead: list[tuple[int, int]]
) -> None:
    found = forecast(days, first, [(day, 0) for day, _ in ahead], 5)

    assert found is not None
    assert (found.low_picos, found.high_picos) == (5, 5)
