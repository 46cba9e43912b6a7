"""Whose turn is next at a backend that is full."""

from collections import Counter

import pytest

from policies.fair_queue import MOST_LINES, MOST_WEIGHT, FairQueue, charged, cost

A, B, C = (5, "a"), (5, "b"), (5, "c")


def queue_of(*waiting: tuple[tuple[int, str], str, int]) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue()
    for line, item, tokens in waiting:
        queue.put(line, item, tokens)
    return queue


def all_of(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_two_teams_take_turns_however_many_requests_one_of_them_has() -> None:
    queue = queue_of(*((A, f"a{n}", 10) for n in range(20)), (B, "b0", 10), (B, "b1", 10))

    assert set(all_of(queue)[:4]) == {"a0", "a1", "b0", "b1"}


def test_turns_are_counted_in_tokens_not_in_requests() -> None:
    queue = queue_of(
        *((A, f"a{n}", 1_000) for n in range(50)), *((B, f"b{n}", 10) for n in range(500))
    )

    first = Counter(item[0] for item in all_of(queue)[:303])

    assert first["a"] == 3
    assert first["b"] == 300


def test_a_higher_priority_goes_first() -> None:
    queue = queue_of(((1, "a"), "late", 1), ((9, "b"), "soon", 10**9), ((9, "b"), "next", 1))

    assert all_of(queue) == ["soon", "next", "late"]


def test_within_a_line_the_order_is_that_of_arrival() -> None:
    assert all_of(queue_of((A, "1", 5), (A, "2", 1), (A, "3", 9))) == ["1", "2", "3"]


def test_nobody_saves_up_turns_by_staying_away() -> None:
    queue = queue_of(*((A, f"a{n}", 10) for n in range(100)))
    for _ in range(50):
        queue.pop()
    for number in range(10):
        queue.put(B, f"b{number}", 10)

    assert {item[0] for item in all_of(queue)[:2]} == {"a", "b"}


def test_who_was_served_without_waiting_is_charged_as_well() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.passed(A, 500)
    queue.passed(A, 500)
    queue.put(A, "a", 10)
    queue.put(B, "b", 10)

    assert queue.counter(B) == 1_000  # one that is new begins at the lowest of those that wait
    assert queue.counter(A) == 1_000


def test_what_a_request_has_cost_in_the_end_counts() -> None:
    queue = queue_of((A, "a0", 10), (B, "b0", 10), (A, "a1", 10), (B, "b1", 10))
    assert {queue.pop(), queue.pop()} == {"a0", "b0"}
    queue.charge(A, 1_000)
    queue.charge(B, -5)

    assert (queue.counter(A), queue.counter(B)) == (1_010, 5)
    assert all_of(queue) == ["b1", "a1"]


def test_one_that_waits_no_more_is_gone_from_its_line() -> None:
    queue = queue_of((A, "a0", 10), (A, "a1", 10))

    assert queue.remove(A, "a0")
    assert not queue.remove(A, "a0")
    assert not queue.remove(C, "c")
    assert all_of(queue) == ["a1"]
    assert queue.first() is None
    with pytest.raises(KeyError):
        queue.pop()


def test_where_there_is_no_room_the_newest_of_the_longest_line_goes() -> None:
    queue = queue_of((A, "a0", 1), (A, "a1", 1), (A, "a2", 1), (B, "b0", 1))

    assert queue.evicted_for(B) == (A, "a2")
    assert queue.evicted_for(C) == (A, "a2")
    assert queue.evicted_for(A) is None
    assert queue.evicted_for((4, "d")) is None
    assert queue.evicted_for((6, "d")) == (A, "a2")


def test_nobody_goes_for_one_whose_line_would_be_as_long() -> None:
    assert queue_of((A, "a0", 1), (B, "b0", 1)).evicted_for(C) is None
    assert FairQueue[str]().evicted_for(A) is None


def test_the_heads_are_those_that_will_be_served_next() -> None:
    queue = queue_of((A, "a0", 100), (A, "a1", 1), (B, "b0", 30), (B, "b1", 30), ((9, "c"), "c", 7))

    assert queue.heads(4) == [(9, 0, "c"), (5, 0, "a0"), (5, 0, "b0"), (5, 30, "b1")]
    assert queue.heads(1) == [(9, 0, "c")]


def test_what_all_workers_counted_is_learnt() -> None:
    queue = queue_of((A, "a", 10), (B, "b", 10))
    queue.learn(A, 700)

    assert queue.first() == B
    assert sorted(queue.lines()) == [A, B]
    assert queue.floors() == [(5, 0)]
    assert sorted(queue.items()) == ["a", "b"]


def test_counters_of_teams_that_are_gone_are_forgotten_some_day() -> None:
    queue = queue_of((A, "a", 10))
    for number in range(MOST_LINES + 1):
        queue.passed((5, f"team_{number}"), 1)

    assert queue.counter((5, "team_0")) == 0
    assert queue.counter((5, f"team_{MOST_LINES}")) in (0, 1)
    assert all_of(queue) == ["a"]


def test_output_weighs_twice() -> None:
    assert cost(100, 20) == 140


def test_a_team_is_charged_its_tokens_divided_by_its_weight() -> None:
    assert [charged(700, weight) for weight in (1, 7, 1_000)] == [700_000, 100_000, 700]
    assert charged(1, MOST_WEIGHT) == 1, "nothing is free"
    assert charged(0, 3) == 0


def test_who_weighs_twice_as_much_is_served_twice_as_often() -> None:
    queue = queue_of(
        *((A, f"a{n}", charged(10, 2)) for n in range(20)),
        *((B, f"b{n}", charged(10, 1)) for n in range(20)),
    )

    assert Counter(item[0] for item in all_of(queue)[:18]) == {"a": 12, "b": 6}
