"""Holds that are put back, and what holds amount to."""

from policies.accounts import MONEY, NO_CAP, TOKENS, Account, Balance
from policies.budgets import Admission, State, release, settle
from policies.budgets import Settlement as Done
from policies.rebuild import held, restore

MONEY_KEPT = Account("m", NO_CAP, 0, 10**9, MONEY, "m")
TOKENS_KEPT = Account("t", NO_CAP, 0, 10**9, TOKENS, "t")
ASK = Admission("h1", 1_000, 70, 0, 9, 0, 0, 1, (), (), (MONEY_KEPT, TOKENS_KEPT))


def test_a_hold_is_put_back_whatever_stands_on_the_account() -> None:
    state = State(accounts={"m": Balance(100, 5)})

    state, placed = restore(state, ASK, 5_000_000)

    assert placed
    assert state.accounts == {"m": Balance(100, 75), "t": Balance(0, 9)}
    assert state.expiries_ms == {"h1": 6_000}
    hold = state.holds["h1"]
    assert hold is not None
    assert held([hold]) == {"m": 70, "t": 9}


def test_one_that_is_there_lives_on_and_one_that_is_spent_stays_so() -> None:
    state, _ = restore(State(), ASK, 0)

    again, twice = restore(state, ASK, 1_000_000)
    spent, _ = release(State(), "h1", (), 0)
    after, late = restore(spent, ASK, 0)

    assert (twice, late) == (False, False)
    assert again.accounts == state.accounts
    assert again.expiries_ms == {"h1": 2_000}
    assert after == spent


def test_it_ends_like_any_other() -> None:
    state, _ = restore(State(), ASK, 0)

    state, found = settle(state, Done("h1", 30, 4, (), b"e"), 0)

    assert found
    assert state.accounts == {"m": Balance(30, 0), "t": Balance(4, 0)}
