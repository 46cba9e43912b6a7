"""A cut is good for one correction."""

from policies.budgets import Balance, State
from policies.recount import Correction, correct, cut

KEYS = ["a", "b"]


def test_a_cut_shows_what_is_there_and_what_is_not() -> None:
    state = State(accounts={"a": Balance(5, 3)}, journal=((b"x", True),))

    after, shown, length = cut(state, "t1", KEYS)

    assert shown == (Balance(5, 3), None)
    assert (after.cut, length) == ("t1", 1)


def test_what_was_posted_after_the_cut_stays() -> None:
    state, _, _ = cut(State(accounts={"a": Balance(5, 3)}), "t1", KEYS)
    state = State(accounts={"a": Balance(9, 0)}, cut=state.cut)

    state, done = correct(state, "t1", [Correction("a", 2, 0, 10), Correction("b", 4, 0, 10)])

    assert done
    assert state.accounts == {"a": Balance(11, 0), "b": Balance(4, 0)}


def test_a_correction_is_made_once_and_only_of_the_newest_cut() -> None:
    state, _, _ = cut(State(), "t1", KEYS)
    newer, _, _ = cut(state, "t2", KEYS)
    one = [Correction("a", 2, 0, 10)]

    done, first = correct(state, "t1", one)
    again, second = correct(done, "t1", one)
    late, third = correct(newer, "t1", one)

    assert (first, second, third) == (True, False, False)
    assert again.accounts == {"a": Balance(2, 0)}
    assert late.accounts == {}
