"""The model of slice.lua: what a stream's next slice takes, and when it takes less or nothing."""

from typing import Any

from policies.budgets import (
    MAX_COUNTER,
    MAX_TOKENS,
    MONEY,
    NO_CAP,
    TOKENS,
    Account,
    Admission,
    Balance,
    Granted,
    State,
    admit,
)
from policies.slices import Slice, SliceAsked, take_slice

NOW_US = 1_000_000


def account(name: str, cap: int, unit: int = MONEY, end_ms: int = 10**9) -> Account:
    return Account(name, cap, 0, end_ms, unit, name)


def held(*accounts: Account, **changes: Any) -> State:
    """One hold: 100 for the input, 10 a token, 20 tokens granted."""
    given: dict[str, Any] = {
        "hold_id": "req_1",
        "ttl_ms": 30_000,
        "input_money": 100,
        "output_money": 10,
        "input_tokens": 5,
        "wanted": 20,
        "least": 20,
        "choices": 1,
        "gates": (),
        "slots": (),
        "accounts": accounts,
    }
    state, answer = admit(State(), Admission(**given | changes), NOW_US)
    assert isinstance(answer, Granted)
    return state


def test_the_next_slice_is_taken_on_every_account_in_its_own_unit() -> None:
    state = held(account("money", 1_000), account("free", NO_CAP), account("tokens", 90, TOKENS))

    state, taken = take_slice(state, SliceAsked("req_1", 40))

    assert taken == Slice(40, -1)
    assert {key: balance.held for key, balance in state.accounts.items()} == {
        "money": 500,
        "free": 500,
        "tokens": 45,
    }
    assert state.holds["req_1"].grant == 40  # type: ignore[union-attr]


def test_the_tightest_account_decides_and_the_one_that_stays_shut_longest_is_named() -> None:
    state = held(account("soon", 345, end_ms=10**6), account("late", 359), account("wide", 900))

    state, taken = take_slice(state, SliceAsked("req_1", 40))

    assert taken == Slice(24, 1)
    assert state.accounts["wide"].held == 340


def test_asking_twice_takes_once_and_asking_for_less_gives_nothing_back() -> None:
    state = held(account("money", 1_000))

    once, _ = take_slice(state, SliceAsked("req_1", 40))
    twice, again = take_slice(once, SliceAsked("req_1", 40))
    less, fewer = take_slice(once, SliceAsked("req_1", 8))

    assert twice == once == less
    assert again == fewer == Slice(40, -1)


def test_a_budget_with_nothing_left_or_overrun_refuses_and_changes_nothing() -> None:
    state = held(account("money", 300))
    overrun = State(holds=state.holds, accounts={"money": Balance(posted=50, held=300)})

    assert take_slice(state, SliceAsked("req_1", 21)) == (state, Slice(20, 0))
    assert take_slice(overrun, SliceAsked("req_1", 21)) == (overrun, Slice(20, 0))


def test_what_costs_nothing_is_never_refused() -> None:
    state = held(account("money", 100), output_money=0)

    assert take_slice(state, SliceAsked("req_1", 500))[1] == Slice(500, -1)


def test_no_grant_outgrows_what_a_counter_or_a_request_can_hold() -> None:
    dear, cheap = held(account("money", NO_CAP)), held(account("money", NO_CAP), output_money=0)

    assert take_slice(dear, SliceAsked("req_1", 2**60))[1] == Slice(MAX_TOKENS, -1)
    assert take_slice(cheap, SliceAsked("req_1", 2**60))[1] == Slice(MAX_TOKENS, -1)
    dearer = held(account("money", NO_CAP), output_money=2**36)
    assert take_slice(dearer, SliceAsked("req_1", 2**32))[1] == Slice(
        (MAX_COUNTER - 100) // 2**36, -1
    )


def test_a_hold_that_is_not_there_or_spent_gets_none() -> None:
    spent = State(holds={"req_1": None})

    assert take_slice(State(), SliceAsked("req_1", 1)) == (State(), None)
    assert take_slice(spent, SliceAsked("req_1", 1)) == (spent, None)
