"""Prices that fall with the quantity of a month."""

from billing.quantity import Mode, Part, Schedule, Step, between, billed
from tests.unit.billing.samples import charge_picos

THREE, TWO = Step(0, 3_000_000), Step(10_000_000, 2_000_000)


def schedule(mode: Mode) -> Schedule:
    return Schedule(mode, (THREE, TWO))


def in_units(parts: tuple[Part, ...]) -> list[tuple[int, int]]:
    return [(part.quantity, part.amount_picos) for part in parts]


def test_case_06_a_call_across_the_edge_is_charged_on_both_sides_of_it() -> None:
    graduated = schedule("graduated")

    call = between(graduated, 9_900_000, 10_200_000)

    assert in_units(call) == [(100_000, 300_000_000_000), (200_000, 400_000_000_000)]
    assert charge_picos(graduated, 10_200_000) == 30_400_000_000_000


def test_case_06_by_volume_the_month_moves_to_the_lower_price() -> None:
    volume = schedule("volume")

    assert charge_picos(volume, 9_900_000) == 29_700_000_000_000
    assert charge_picos(volume, 10_200_000) == 20_400_000_000_000
    moved = between(volume, 9_900_000, 10_200_000)
    assert sum(part.amount_picos for part in moved) == -9_300_000_000_000


def test_the_edge_itself_is_still_below() -> None:
    assert charge_picos(schedule("volume"), 10_000_000) == 30_000_000_000_000
    assert charge_picos(schedule("volume"), 10_000_001) == 20_000_002_000_000


def test_every_payer_has_the_same_share_of_each_step() -> None:
    new = {"a": 6_000_000, "b": 6_000_000, "c": 8_000_000}

    parts = list(billed(schedule("graduated"), new, {}))

    assert [(payer, part.quantity) for payer, part in parts if part.step is THREE] == [
        ("a", 3_000_000), ("b", 3_000_000), ("c", 4_000_000),
    ]  # fmt: skip
    assert sum(part.amount_picos for payer, part in parts if payer == "c") == 20_000_000_000_000


def test_usage_that_is_taken_back_gives_up_the_last_step_first() -> None:
    parts = list(billed(schedule("graduated"), {"a": -300_000}, {"a": 10_200_000}))

    assert [(part.step, part.quantity) for _, part in parts] == [(THREE, -100_000), (TWO, -200_000)]


def test_a_price_that_begins_free_is_booked_at_what_follows() -> None:
    assert Schedule("graduated", (Step(0, 0), Step(100, 7))).dearest_picos == 7


def test_what_cannot_be_divided_goes_to_the_largest_remainder_and_then_to_the_first() -> None:
    def of_the_first_step(**new: int) -> dict[str, int]:
        steps = Schedule("graduated", (Step(0, 3), Step(2, 2)))
        parts = billed(steps, new, {})
        return {payer: part.quantity for payer, part in parts if part.step == Step(0, 3)}

    assert of_the_first_step(a=1, b=2) == {"a": 1, "b": 1}, "0.67 and 1.33"
    assert of_the_first_step(a=1, b=4) == {"a": 0, "b": 2}, "0.4 and 1.6"
    assert of_the_first_step(a=1, b=1, c=1) == {"a": 1, "b": 1, "c": 0}
