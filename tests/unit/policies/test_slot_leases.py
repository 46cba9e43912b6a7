"""How many slots of a backend each worker has."""

import msgspec

from policies.slot_leases import (
    FRESH_MS,
    IDLE_MS,
    NOBODY,
    PATIENCE_MS,
    Crew,
    SlotsAsked,
    behind,
    share,
    slack,
)

AHEAD = slack(1)
NOW_US = 1_000_000_000
SECOND_US = 1_000_000


def asks(worker: str = "w1", **fields: object) -> SlotsAsked:
    blank = SlotsAsked("bk", worker, 5_000, 4, kept=0, busy=0, spare=0, waiting=0)
    return msgspec.structs.replace(blank, **fields)


def after(*steps: SlotsAsked, at_us: int = NOW_US) -> Crew:
    crew = Crew()
    for step in steps:
        crew, _ = share(crew, step, at_us)
    return crew


def test_all_workers_together_have_what_the_backend_takes() -> None:
    crew = after(asks("w1", spare=3), asks("w2", spare=3), asks("w3", spare=3))

    assert {name: each.slots for name, each in crew.holders.items()} == {"w1": 3, "w2": 1, "w3": 0}


def test_what_a_worker_keeps_is_its_own_even_where_the_capacity_shrinks() -> None:
    _, mine = share(after(asks("w2", spare=4)), asks(kept=2, busy=2, capacity=1), NOW_US)

    assert mine.slots == 2
    assert (mine.rank, mine.workers, mine.idle) == (0, 2, 4)


def test_the_slots_of_a_dead_worker_come_free_at_its_expiry() -> None:
    crew = after(asks("w2", spare=4))

    assert share(crew, asks(spare=2), NOW_US + 4_999_000)[1].slots == 0
    assert share(crew, asks(spare=2), NOW_US + 5_000_000)[1].slots == 2


def test_who_goes_gives_everything_back() -> None:
    crew, gone = share(after(asks(spare=4)), asks(ttl_ms=0), NOW_US)

    assert gone.slots == 0
    assert crew.holders == {}


def test_nothing_is_lent_ahead_of_need_where_somebody_else_waits() -> None:
    crew = after(asks("w2", waiting=1, heads=((9, 0, 7, "t", AHEAD),)))

    told = share(crew, asks(kept=1, busy=1, spare=2), NOW_US)[1]

    assert told.slots == 1
    assert told.rival == (9, 0)
    assert told.waiting == 1


def test_slots_go_to_the_worker_where_the_next_in_turn_waits() -> None:
    crew = after(asks("w2", waiting=1, heads=((9, 10_000, 0, "a", AHEAD),)))
    counters = (0, 9_000, 10_000 + AHEAD, 10_001 + AHEAD)
    heads = (*((9, counter, 0, "b", AHEAD) for counter in counters), (8, 0, 0, "b", AHEAD))

    assert share(crew, asks(heads=heads, waiting=5, capacity=9), NOW_US)[1].slots == 3


def test_who_has_not_been_heard_of_lately_stands_in_nobodys_way() -> None:
    crew = after(asks("w2", waiting=1, heads=((9, 0, 0, "t", AHEAD),)))
    late_us = NOW_US + FRESH_MS * 1000

    mine = asks(waiting=1, heads=((1, 0, 0, "t", AHEAD),))
    assert share(crew, mine, late_us - 1000)[1].rival == (9, 0)
    told = share(crew, mine, late_us)[1]
    assert (told.rival, told.slots) == (NOBODY, 1)


def test_priority_decides_before_any_count_of_tokens() -> None:
    assert behind((3, 0, 0, "t", AHEAD), (4, 10**9), None)
    assert not behind((4, 10**9, 9_000, "t", AHEAD), (3, 0), None)
    assert not behind((4, AHEAD, 0, "t", AHEAD), (4, 0), None)
    assert behind((4, AHEAD + 1, 0, "t", AHEAD), (4, 0), None)


def test_a_team_that_weighs_more_is_ahead_by_no_more_tokens() -> None:
    heavy = slack(40)

    assert heavy == AHEAD // 40
    assert not behind((4, heavy, 0, "t", heavy), (4, 0), None)
    assert behind((4, heavy + 1, 0, "t", heavy), (4, 0), None)
    crew = after(asks("w2", waiting=1, heads=((9, 0, 0, "a", AHEAD),)))
    heads = (
        (9, heavy, 0, "b", heavy),
        (9, heavy + 1, 0, "c", AHEAD),
        (9, heavy + 1, 0, "b", heavy),
    )
    assert share(crew, asks(heads=heads, waiting=3), NOW_US)[1].slots == 2


def test_within_a_line_the_one_that_waits_longest_goes_first_on_whichever_worker() -> None:
    assert behind((4, 0, 1_000 + PATIENCE_MS + 1, "t", AHEAD), (4, AHEAD), 1_000)
    assert not behind((4, 0, 1_000 + PATIENCE_MS, "t", AHEAD), (4, AHEAD), 1_000)
    crew = after(
        asks("w2", waiting=2, heads=((9, 0, 100, "a", AHEAD), (9, 200, 90, "a", AHEAD))),
        asks("w3", waiting=2, heads=((9, 100, 700, "b", AHEAD), (9, AHEAD, 200, "a", AHEAD))),
    )

    lines = ((9, "a", 0), (9, "b", 0), (9, "c", 0), (8, "a", 0))
    told = share(crew, asks(lines=lines), NOW_US)[1]
    assert (told.rival, told.elders) == ((9, 0), (200, 700, 0, 0))
    younger = asks(waiting=1, heads=((9, 0, 200 - PATIENCE_MS - 1, "a", AHEAD),), capacity=5)
    assert share(crew, younger, NOW_US)[1].slots == 0
    of_another_team = asks(waiting=1, heads=((9, 0, 0, "c", AHEAD),), capacity=5)
    assert share(crew, of_another_team, NOW_US)[1].slots == 1


def test_what_a_team_has_cost_is_added_up_over_the_workers() -> None:
    crew = after(asks("w1", lines=((9, "t", 70),)), asks("w2", lines=((9, "t", 30), (8, "t", 5))))

    assert share(crew, asks(lines=((9, "t", -20), (8, "t", -20))), NOW_US)[1].counters == (80, 0)


def test_a_team_that_comes_back_begins_where_the_others_are() -> None:
    crew = after(asks(lines=((9, "t", 70),), floors=((9, 500), (8, 900))), asks(floors=((9, 400),)))
    back = asks(lines=((9, "t", 1),))

    assert share(crew, back, NOW_US + IDLE_MS * 1000 - 1000)[1].counters == (71,)
    assert share(crew, back, NOW_US + IDLE_MS * 1000)[1].counters == (501,)
