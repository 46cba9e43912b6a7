import random

from policies.breaker import (
    CLOSED,
    CONSECUTIVE,
    MAX_OPEN_US,
    OPEN_US,
    PROBE_US,
    SHARE_LEAST,
    SHARE_WINDOW_US,
    Breaker,
    State,
    allows,
    began,
    failed,
    released,
    state,
    succeeded,
)


def opened(now_us: int = 0) -> Breaker:
    breaker = CLOSED
    for _ in range(CONSECUTIVE):
        breaker = failed(breaker, now_us)
    return breaker


def test_five_failures_in_a_row_open_it() -> None:
    breaker = CLOSED
    for _ in range(CONSECUTIVE - 1):
        breaker = failed(breaker, 0)
    assert state(breaker, 0) is State.CLOSED

    breaker = failed(breaker, 0)

    assert state(breaker, 0) is State.OPEN
    assert not allows(breaker, 0)


def test_a_success_between_failures_starts_the_row_again() -> None:
    breaker = CLOSED
    for _ in range(2):
        for _ in range(CONSECUTIVE - 1):
            breaker = failed(breaker, 0)
        breaker = succeeded(breaker, 0)

    assert state(breaker, 0) is State.CLOSED


def test_half_of_the_outcomes_of_ten_seconds_open_it() -> None:
    breaker = CLOSED
    for number in range(SHARE_LEAST):
        assert state(breaker, number) is State.CLOSED
        breaker = (failed if number % 2 else succeeded)(breaker, number)

    assert state(breaker, SHARE_LEAST) is State.OPEN


def test_a_share_of_few_outcomes_means_nothing() -> None:
    breaker = CLOSED
    for number in range(SHARE_LEAST - 2):
        breaker = (failed if number % 2 else succeeded)(breaker, number)

    assert state(breaker, 100) is State.CLOSED


def test_an_old_share_is_forgotten() -> None:
    breaker = CLOSED
    for number in range(SHARE_LEAST - 2):
        breaker = (failed if number % 2 else succeeded)(breaker, 0)
    for _ in range(3):
        breaker = failed(breaker, SHARE_WINDOW_US)

    assert breaker.window_outcomes == 3
    assert state(breaker, SHARE_WINDOW_US) is State.CLOSED


def test_time_alone_makes_it_half_open() -> None:
    breaker = opened(100)

    assert state(breaker, 100 + OPEN_US - 1) is State.OPEN
    assert state(breaker, 100 + OPEN_US) is State.HALF_OPEN
    assert allows(breaker, 100 + OPEN_US)


def test_half_open_lets_one_probe_through() -> None:
    breaker = began(opened(), OPEN_US)

    assert not allows(breaker, OPEN_US)
    assert not allows(breaker, OPEN_US + PROBE_US - 1)


def test_a_probe_that_never_reports_frees_its_place() -> None:
    breaker = began(opened(), OPEN_US)

    assert allows(breaker, OPEN_US + PROBE_US)


def test_a_probe_that_is_let_go_frees_its_place() -> None:
    breaker = released(began(opened(), OPEN_US), OPEN_US)

    assert allows(breaker, OPEN_US)
    assert state(breaker, OPEN_US) is State.HALF_OPEN


def test_a_probe_that_succeeds_closes_it_and_wipes_its_record() -> None:
    breaker = succeeded(began(opened(), OPEN_US), OPEN_US + 1)

    assert state(breaker, OPEN_US + 1) is State.CLOSED
    assert breaker.consecutive == 0
    assert breaker.open_for_us == OPEN_US


def test_each_failed_probe_doubles_the_wait_up_to_twelve_seconds() -> None:
    breaker, now_us, waits = opened(), 0, []
    for _ in range(4):
        waits.append(breaker.open_for_us)
        now_us += breaker.open_for_us
        breaker = failed(began(breaker, now_us), now_us)

    assert [wait // 1_000_000 for wait in waits] == [5, 10, 12, 12]
    assert breaker.open_for_us == MAX_OPEN_US


def test_answers_to_requests_from_before_change_nothing_while_it_is_open() -> None:
    breaker = opened()

    assert succeeded(breaker, 1) == breaker
    assert failed(breaker, 1) == breaker
    assert released(breaker, 1) == breaker


def test_a_closed_breaker_takes_no_note_of_who_begins_or_lets_go() -> None:
    assert began(CLOSED, 5) == CLOSED
    assert released(CLOSED, 5) == CLOSED
    assert allows(CLOSED, 5)


def test_it_never_ends_in_a_state_that_lets_nothing_through_for_ever() -> None:
    drawn = random.Random(3)
    for _ in range(300):
        breaker, now_us = CLOSED, 0
        for _ in range(60):
            now_us += drawn.choice([0, 1_000_000, OPEN_US, PROBE_US])
            breaker = drawn.choice([began, succeeded, failed, released])(breaker, now_us)

        assert allows(breaker, now_us + MAX_OPEN_US + PROBE_US)
