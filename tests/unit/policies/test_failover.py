import pytest

from policies.candidates import Candidate
from policies.failover import (
    Attempts,
    Outcome,
    RetryBudget,
    outcome_of_failure,
    outcome_of_status,
)
from tests.policy_builders import a_candidate

FIRST, SECOND, THIRD = (a_candidate(f"bk_{number}") for number in range(3))
MS = 1_000


def begun(*candidates: Candidate) -> Attempts:
    attempts = Attempts(candidates or (FIRST, SECOND, THIRD), RetryBudget())
    assert attempts.begin(0) == (candidates or (FIRST,))[0]
    return attempts


@pytest.mark.parametrize("outcome", [Outcome.NOT_SENT, Outcome.REFUSED])
def test_what_was_provably_not_processed_goes_to_the_next(outcome: Outcome) -> None:
    attempts = begun()

    assert attempts.after(outcome, 1, first_byte_sent=False) == SECOND
    assert attempts.after(outcome, 2, first_byte_sent=False) == THIRD
    assert attempts.number == 2


@pytest.mark.parametrize("outcome", [Outcome.ANSWERED, Outcome.UNCERTAIN])
def test_what_may_have_been_processed_is_never_asked_again(outcome: Outcome) -> None:
    attempts = begun()

    assert attempts.after(outcome, 1, first_byte_sent=False) is None
    assert attempts.number == 0


@pytest.mark.parametrize("outcome", list(Outcome))
def test_nothing_follows_the_clients_first_byte(outcome: Outcome) -> None:
    assert begun().after(outcome, 1, first_byte_sent=True) is None


def test_a_plan_ends_with_its_last_candidate() -> None:
    assert begun(FIRST).after(Outcome.NOT_SENT, 1, first_byte_sent=False) is None


def test_a_plan_has_at_least_one_attempt() -> None:
    with pytest.raises(ValueError, match="without attempts"):
        Attempts((), RetryBudget())


def test_a_spent_budget_ends_the_plan() -> None:
    budget = RetryBudget()
    for _ in range(RetryBudget.FLOOR):
        assert budget.take(0)
    attempts = Attempts((FIRST, SECOND), budget)
    attempts.begin(0)

    assert attempts.after(Outcome.NOT_SENT, 1, first_byte_sent=False) is None


def test_a_second_of_requests_may_retry_a_tenth_of_them() -> None:
    budget = RetryBudget()
    for number in range(200):
        budget.request(number)

    assert sum(budget.take(500) for _ in range(200)) == 20


def test_three_retries_a_second_are_always_allowed() -> None:
    budget = RetryBudget()

    assert [budget.take(now) for now in (0, 1, 2, 3)] == [True, True, True, False]
    assert budget.take(1_000 * MS)


def test_requests_older_than_a_second_earn_no_retries() -> None:
    budget = RetryBudget()
    for _ in range(1_000):
        budget.request(0)

    assert sum(budget.take(1_000 * MS) for _ in range(100)) == RetryBudget.FLOOR


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.ANSWERED),
        (400, Outcome.ANSWERED),
        (404, Outcome.ANSWERED),
        (429, Outcome.REFUSED),
        (500, Outcome.UNCERTAIN),
        (502, Outcome.UNCERTAIN),
        (503, Outcome.REFUSED),
        (504, Outcome.UNCERTAIN),
        (529, Outcome.REFUSED),
    ],
)
def test_a_status_tells_whether_the_request_was_processed(status: int, outcome: Outcome) -> None:
    assert outcome_of_status(status) is outcome


def test_a_failure_is_certain_only_when_nothing_was_sent() -> None:
    assert outcome_of_failure(sent=False) is Outcome.NOT_SENT
    assert outcome_of_failure(sent=True) is Outcome.UNCERTAIN


def test_a_hedge_is_the_next_of_the_plan_and_is_paid_as_a_retry_is() -> None:
    attempts = begun()
    assert (attempts.current, attempts.next) == (FIRST, SECOND)

    assert attempts.beside(1) == SECOND
    assert (attempts.number, attempts.next) == (1, THIRD)
    assert attempts.after(Outcome.REFUSED, 2, first_byte_sent=False) == THIRD
    assert attempts.next is None
    assert attempts.beside(3) is None


def test_a_spent_budget_allows_no_hedge() -> None:
    budget = RetryBudget()
    attempts = Attempts((FIRST, SECOND), budget)
    attempts.begin(0)
    while budget.take(0):
        pass

    assert attempts.beside(0) is None
    assert attempts.number == 0


def test_who_asked_to_be_left_alone_since_is_passed_over_and_has_no_number() -> None:
    attempts = Attempts((FIRST, SECOND, THIRD), RetryBudget(), SECOND.__eq__)
    attempts.begin(0)

    assert attempts.next == THIRD
    assert attempts.after(Outcome.REFUSED, 1, first_byte_sent=False) == THIRD
    assert (attempts.number, attempts.current) == (1, THIRD)
    all_rest = Attempts((FIRST, SECOND), RetryBudget(), lambda _: True)
    assert all_rest.after(Outcome.REFUSED, 1, first_byte_sent=False) is None


def test_one_that_has_room_goes_before_one_that_is_full() -> None:
    attempts = Attempts((FIRST, SECOND, THIRD), RetryBudget(), SECOND.__eq__)
    attempts.begin(0)
    assert attempts.left == [FIRST, THIRD]

    attempts.instead(THIRD)

    assert attempts.current == THIRD
    assert attempts.left == [THIRD, FIRST]
    assert attempts.after(Outcome.NOT_SENT, 1, first_byte_sent=False) == FIRST
