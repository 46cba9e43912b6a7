import msgspec

from policies.idempotency import (
    DROPPED_AT_ONCE,
    FINISHED,
    IN_FLIGHT,
    OTHER_BODY,
    Keeping,
    Replay,
    Ticket,
    Tickets,
    crowded_ms,
    given_back,
    keep,
    replay,
    taken,
)

NOW = 1_000_000
MINE = Ticket("idx", "name", "print", ttl_ms=1_000, most=3)
TAKEN = taken(Tickets(), MINE, "req_1", NOW)
KEEPING = Keeping("idx", "name", "req_1", 500, 10_000, b"answer")


def named(name: str) -> Ticket:
    return msgspec.structs.replace(MINE, name=name)


def test_a_ticket_is_free_until_somebody_has_it() -> None:
    assert replay(Tickets(), MINE, (), NOW) is None
    assert replay(TAKEN, MINE, {"req_1"}, NOW) == Replay(IN_FLIGHT, "req_1")
    assert replay(TAKEN, MINE, (), NOW) == Replay(FINISHED, "req_1")


def test_another_body_is_told_before_anything_else() -> None:
    other = msgspec.structs.replace(MINE, fingerprint="other")
    assert replay(TAKEN, other, {"req_1"}, NOW) == Replay(OTHER_BODY, "req_1")
    assert replay(TAKEN, other, (), NOW) == Replay(OTHER_BODY, "req_1")


def test_a_ticket_is_forgotten_in_time_but_never_in_flight() -> None:
    assert replay(TAKEN, MINE, (), NOW + 999) is not None
    assert replay(TAKEN, MINE, (), NOW + 1_000) is None
    assert replay(TAKEN, MINE, {"req_1"}, NOW + 10**9) == Replay(IN_FLIGHT, "req_1")


def test_only_its_holder_gives_a_ticket_back() -> None:
    assert given_back(TAKEN, MINE, "req_2") == TAKEN
    assert replay(given_back(TAKEN, MINE, "req_1"), MINE, (), NOW) is None


def test_too_many_tickets_wait_for_the_first_to_expire() -> None:
    tickets = Tickets()
    for age, name in enumerate("abc"):
        assert crowded_ms(tickets, named(name), NOW + age) == 0
        tickets = taken(tickets, named(name), f"req_{name}", NOW + age)
    assert crowded_ms(tickets, MINE, NOW + 10) == 990
    assert crowded_ms(tickets, MINE, NOW + 1_000) == 0


def test_so_many_expired_names_are_dropped_at_once() -> None:
    tickets = Tickets()
    for number in range(100):
        tickets = taken(tickets, named(f"{number:03}"), "req", NOW)
    tickets = taken(tickets, MINE, "req", NOW + 5_000)
    assert len(tickets.index["idx"]) == 100 - DROPPED_AT_ONCE + 1


def test_an_answer_is_kept_for_its_own_ticket_only() -> None:
    assert keep(Tickets(), KEEPING, NOW) == (Tickets(), False)
    other = msgspec.structs.replace(KEEPING, hold_id="req_2")
    assert keep(TAKEN, other, NOW) == (TAKEN, False)
    tickets, kept = keep(TAKEN, KEEPING, NOW)
    assert kept
    assert replay(tickets, MINE, (), NOW) == Replay(FINISHED, "req_1", b"answer")
    assert replay(tickets, MINE, (), NOW + 500) == Replay(FINISHED, "req_1")


def test_an_answer_is_not_kept_longer_than_its_ticket() -> None:
    tickets, _ = keep(TAKEN, msgspec.structs.replace(KEEPING, ttl_ms=9_000), NOW)
    assert [kept.expiry_ms for kept in tickets.answers.values()] == [NOW + 1_000]


def test_the_answer_that_expires_first_makes_room_and_a_large_one_none() -> None:
    tickets = taken(TAKEN, named("b"), "req_2", NOW + 1)
    tickets, _ = keep(tickets, KEEPING, NOW + 1)
    second = msgspec.structs.replace(KEEPING, name="b", hold_id="req_2", most_bytes=600)
    tickets, kept = keep(tickets, second, NOW + 2)
    assert (kept, list(tickets.answers)) == (True, ["idx:answer:req_2"])
    large = msgspec.structs.replace(second, answer=b"x" * 600)
    assert keep(tickets, msgspec.structs.replace(large, hold_id="req_1", name="name"), NOW) == (
        tickets,
        False,
    )
