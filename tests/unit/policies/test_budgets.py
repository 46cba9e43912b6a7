"""The model of holds, told in single steps. What the scripts do is compared with it elsewhere."""

import msgspec
import pytest

from policies.budgets import (
    MAX_COUNTER,
    MAX_LEVELS,
    MONEY,
    NO_CAP,
    TOKENS,
    Account,
    Admission,
    Balance,
    Granted,
    Reaping,
    Refused,
    Settlement,
    State,
    admit,
    extend,
    release,
    settle,
)
from policies.limits import Gate, Slot

NOW_US = 5_000_000
NOW_MS = NOW_US // 1000


def account(cap: int, name: str = "b", unit: int = MONEY, end_ms: int = 10_000) -> Account:
    return Account(name, cap, 0, end_ms, unit, name)


def asked(*accounts: Account, **changes: object) -> Admission:
    plain = Admission("req_1", 30_000, 100, 10, 7, 50, 5, 1, (), (), accounts)
    return msgspec.structs.replace(plain, **changes)


def granted(state: State, ask: Admission) -> tuple[State, Granted]:
    state, answer = admit(state, ask, NOW_US)
    assert isinstance(answer, Granted), answer
    return state, answer


def refused(state: State, ask: Admission) -> Refused:
    after, answer = admit(state, ask, NOW_US)
    assert isinstance(answer, Refused), answer
    assert after == state
    return answer


def test_everything_wanted_is_granted_when_it_fits() -> None:
    state, answer = granted(State(), asked(account(600)))
    assert (answer.output_tokens, answer.held_money, answer.remaining) == (50, 600, (0,))
    assert state.accounts == {"b": Balance(0, 600)}


def test_the_grant_shrinks_to_what_the_tightest_level_can_pay() -> None:
    _, answer = granted(State(), asked(account(600, "a"), account(219, "b")))
    assert (answer.output_tokens, answer.remaining) == (11, (390, 9))


def test_tokens_and_money_are_held_side_by_side_for_every_choice() -> None:
    ask = asked(account(NO_CAP), account(1_000, "t", TOKENS), choices=3)
    state, answer = granted(State(), ask)
    assert answer.held_money == 100 + 3 * 50 * 10
    assert state.accounts == {"b": Balance(0, 1_600), "t": Balance(0, 7 + 3 * 50)}
    assert answer.remaining == (NO_CAP, 1_000 - 157)


def test_less_than_the_least_useful_output_is_refused_and_says_what_would_fit() -> None:
    answer = refused(State(), asked(account(149)))
    assert (answer.reason, answer.available, answer.retry_after_ms) == ("budget", 4, 5_000)
    assert refused(State(), asked(account(99))).available == 0


def test_of_two_refusing_budgets_the_one_that_lasts_longer_speaks() -> None:
    day, month = account(0, "day", end_ms=6_000), account(0, "month", end_ms=9_000)
    assert refused(State(), asked(day, month)).index == 1
    assert refused(State(), asked(month, day)).retry_after_ms == 4_000


def test_a_free_model_needs_room_for_nothing() -> None:
    free = asked(account(0), input_money=0, output_money=0)
    _, answer = granted(State(), free)
    assert answer.output_tokens == 50
    state = State(accounts={"b": Balance(1, 0)})
    assert refused(state, free).reason == "budget"


def test_a_soft_budget_counts_beyond_every_cap() -> None:
    state = State(accounts={"b": Balance(MAX_COUNTER, MAX_COUNTER)})
    _, answer = granted(state, asked(account(NO_CAP)))
    assert answer.remaining == (NO_CAP,)


def test_a_grant_never_exceeds_what_a_counter_can_hold() -> None:
    huge = asked(input_money=MAX_COUNTER - 100, wanted=50, least=5)
    _, answer = granted(State(), huge)
    assert (answer.output_tokens, answer.held_money) == (10, MAX_COUNTER)


def test_windows_are_half_open() -> None:
    assert refused(State(), asked(account(NO_CAP, end_ms=NOW_MS))).reason == "stale_window"
    granted(State(), asked(account(NO_CAP, end_ms=NOW_MS + 1)))


def test_the_longest_wait_of_all_rate_limits_is_told() -> None:
    gates = tuple(Gate(name, 1_000, 1_000, name, "rpm") for name in ("a", "b"))
    state = State(gates={"a": NOW_US + 1, "b": NOW_US + 1_001})
    answer = refused(state, asked(gates=gates))
    assert (answer.reason, answer.index, answer.retry_after_ms) == ("rate", 1, 2)


def test_settling_posts_the_truth_and_an_absent_hold_moves_nothing() -> None:
    state, _ = granted(State(), asked(account(600), account(NO_CAP, "t", TOKENS)))
    state, found = settle(state, Settlement("req_1", 33, 8, event=b"e"), NOW_US)
    assert found
    assert state.accounts == {"b": Balance(33, 0), "t": Balance(8, 0)}
    after, found = settle(state, Settlement("req_1", 33, 8, event=b"e"), NOW_US)
    assert not found
    assert after.accounts == state.accounts
    assert after.journal == ((b"e", True), (b"e", False))


def test_releasing_undoes_and_spends_the_id_of_an_absent_hold() -> None:
    state, _ = granted(State(), asked(account(600), slots=(Slot("s", 1, "s"),)))
    state, found = release(state, "req_1", (), NOW_US)
    assert found
    assert (state.accounts, state.slots, state.holds) == ({"b": Balance()}, {"s": {}}, {})
    state, found = release(state, "req_1", (), NOW_US)
    assert not found
    assert refused(state, asked()).reason == "spent"


def test_a_duplicate_changes_nothing_and_answers_alike() -> None:
    state, first = granted(State(), asked(account(600)))
    after, again = granted(state, asked(account(600)))
    assert after == state
    assert msgspec.structs.replace(again, duplicate=False) == first


def test_extending_moves_hold_and_slots_together_and_names_the_absent() -> None:
    state, _ = granted(State(), asked(slots=(Slot("s", 1, "s"),)))
    state, absent = extend(state, ["req_1", "gone"], 60_000, NOW_US)
    assert absent == ("gone",)
    assert state.slots["s"]["req_1"] == state.expiries_ms["req_1"] == NOW_MS + 60_000


@pytest.mark.parametrize(
    "figures",
    [
        {"least": 51},
        {"least": -1},
        {"choices": 0},
        {"wanted": 2**32 + 1},
        {"output_money": 2**37 + 1},
        {"input_money": -1},
        {"input_money": MAX_COUNTER},
        {"input_tokens": 2**32 + 1},
        {"slots": (Slot("s", 1, "s"),) * (MAX_LEVELS + 1)},
    ],
)
def test_figures_beyond_the_exact_are_refused(figures: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        asked(**figures)


@pytest.mark.parametrize("money", [-1, MAX_COUNTER + 1])
def test_a_settlement_beyond_the_exact_is_refused(money: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Settlement("req_1", money, 0)


def test_a_reaper_ends_a_hold_only_when_it_is_overdue_and_the_lease_is_its_own() -> None:
    state, _ = granted(State(leases={"lease": "mine"}), asked(account(600)))
    end_us = NOW_US + 30_000_000
    reap = Settlement("req_1", 7, 7, event=b"e", reaping=Reaping(5_000, "lease", "mine"))
    another = msgspec.structs.replace(reap, reaping=Reaping(5_000, "lease", "another's"))

    assert settle(state, reap, end_us + 4_999_000) == (state, False)
    assert settle(state, another, end_us + 5_000_000) == (state, False)
    after, found = settle(state, reap, end_us + 5_000_000)
    assert found
    assert (after.accounts, after.journal) == ({"b": Balance(7, 0)}, ((b"e", True),))
    assert settle(after, reap, end_us + 5_000_000) == (after, False), "nor is it told twice"
