from policies import concurrency
from policies.concurrency import BUSY, CALM_TURNS, FREE, TURN_US, Room


def turn(room: Room, ttft_us: int, in_flight: int, at: int) -> Room:
    room = concurrency.began(room, in_flight)
    for _ in range(10):
        room = concurrency.answered(room, ttft_us)
    return concurrency.turned(room, 0, at * TURN_US)


def test_a_refusal_takes_three_tenths_once_a_turn_and_quiet_turns_give_it_back() -> None:
    room = FREE
    for _ in range(20):  # refused together
        room = concurrency.refused(room, 100)
    assert room.limit == 70

    room = turn(room, 1_000, 60, 1)
    assert room.limit == 70, "not in the turn of the refusal"
    for at in range(2, 2 + 10 * CALM_TURNS):
        room = turn(room, 1_000, 60, at)
    assert room.limit == 80


def test_slower_answers_lower_the_limit_by_as_much_where_there_is_a_crowd() -> None:
    room = FREE
    for at in range(1, 5):
        room = turn(room, 100_000, 40, at)
    assert room.limit is None

    crowded = turn(room, 300_000, 40, 5)
    assert crowded.limit == 20, "halved at most"
    assert turn(room, 200_000, 40, 5).limit == 30
    assert turn(room, 149_000, 40, 5).limit is None
    assert turn(room, 300_000, BUSY - 1, 5).limit is None, "slow, but not for the crowd"


def test_a_limit_that_nobody_needs_is_gone_after_a_minute() -> None:
    room = concurrency.refused(FREE, 100)
    for at in range(1, 62):
        assert room.limit == 70
        room = turn(room, 1_000, 3, at)
    assert room.limit is None


def test_one_taken_for_slow_is_believed_when_it_is_quick() -> None:
    room = turn(FREE, 1_000_000, 1, 1)
    for at in range(2, 60):
        room = turn(room, 100_000, 1, at)
    assert room.usual_us < 250_000
