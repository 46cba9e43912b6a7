"""Rates and slots as values."""

from policies.limits import MAX_DEBT_US, Gate, Slot, corrected, is_full, taken, wait_us

NOW = 1_000_000_000


def gate(advance_us: int, burst_us: int = 10_000_000) -> Gate:
    return Gate("k", advance_us, burst_us, "lim", "rpm")


def test_a_burst_goes_in_and_the_next_waits_for_its_share() -> None:
    one_second = gate(1_000_000)
    tat = 0
    for _ in range(10):
        assert wait_us(tat, one_second, NOW) <= 0
        tat = taken(tat, one_second, NOW)
    assert wait_us(tat, one_second, NOW) == 1_000_000
    assert wait_us(tat, one_second, NOW + 1_000_000) == 0


def test_more_than_the_burst_waits_for_an_idle_gate_then_runs_into_debt() -> None:
    huge = gate(60_000_000)
    assert wait_us(0, huge, NOW) <= 0
    tat = taken(0, huge, NOW)
    assert wait_us(tat, huge, NOW) == 60_000_000
    assert wait_us(tat, huge, NOW + 60_000_000) == 0


def test_an_idle_gate_saves_nothing_up() -> None:
    assert taken(0, gate(5), NOW) == taken(NOW - 1, gate(5), NOW) == NOW + 5


def test_a_correction_moves_the_gate_and_may_leave_it_idle() -> None:
    assert corrected(NOW + 500, -200, NOW) == NOW + 300
    assert corrected(NOW + 500, -500, NOW) is None
    assert corrected(0, 700, NOW) == NOW + 700
    assert corrected(NOW, 2 * MAX_DEBT_US, NOW) == NOW + MAX_DEBT_US


def test_only_the_living_occupy_slots() -> None:
    slot = Slot("k", 2, "lim")
    assert not is_full(slot, {"a": 11, "b": 10}, now_ms=10)
    assert is_full(slot, {"a": 11, "b": 12}, now_ms=10)
    assert is_full(Slot("k", 0, "lim"), {}, now_ms=10)
