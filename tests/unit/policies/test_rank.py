from collections import Counter
from collections.abc import Sequence

import pytest

from policies.candidates import Candidate, Live
from policies.compile import DEFAULT, EffectivePolicy
from policies.rank import is_saturated, rank
from tests.policy_builders import a_candidate, an_ask, quick, seen_as

CHEAP = a_candidate("cheap", cost_input_picos=1, cost_output_picos=1, placement="cloud")
MIDDLE = a_candidate("middle", cost_input_picos=2, cost_output_picos=2, placement="edge")
DEAR = a_candidate("dear", cost_input_picos=9, cost_output_picos=9, placement="on_prem")
ALL = (DEAR, CHEAP, MIDDLE)


def order(
    policy: EffectivePolicy = DEFAULT,
    candidates: Sequence[Candidate] = ALL,
    draw: int = 0,
    **live: Live,
) -> list[str]:
    ranked = rank(policy, an_ask(), candidates, seen_as(**live), draw)
    return [candidate.backend_id for candidate in ranked]


def test_the_cheapest_comes_first_by_default() -> None:
    assert order() == ["cheap", "middle", "dear"]


def test_one_candidate_and_none_need_no_ranking() -> None:
    assert order(candidates=(DEAR,)) == ["dear"]
    assert order(candidates=()) == []


def test_the_fastest_comes_first_where_speed_is_preferred() -> None:
    found = order(
        EffectivePolicy(prefer="fastest"),
        cheap=Live(ttft_p95_us=900),
        middle=Live(ttft_p95_us=500),
        dear=Live(ttft_p95_us=700),
    )

    assert found == ["middle", "dear", "cheap"]


def test_the_moving_average_is_believed_before_the_last_minute() -> None:
    found = order(
        EffectivePolicy(prefer="fastest"),
        cheap=Live(ttft_ewma_us=900, ttft_p95_us=100),
        middle=Live(ttft_p95_us=500),
        dear=Live(ttft_p95_us=700),
    )

    assert found == ["middle", "dear", "cheap"]


def test_one_never_tried_comes_first_where_speed_is_preferred() -> None:
    found = order(
        EffectivePolicy(prefer="fastest"), cheap=Live(ttft_p95_us=1), middle=Live(ttft_p95_us=2)
    )

    assert found == ["dear", "cheap", "middle"]


def test_placements_are_tried_in_their_order_and_unnamed_ones_last() -> None:
    assert order(EffectivePolicy(prefer=("on_prem", "edge"))) == ["dear", "middle", "cheap"]
    assert order(EffectivePolicy(prefer=("edge",))) == ["middle", "cheap", "dear"]


def test_balanced_trades_cost_for_speed() -> None:
    even = Live(ttft_p95_us=1_000)
    balanced = EffectivePolicy(prefer="balanced")

    assert order(balanced, cheap=even, middle=even, dear=even) == ["cheap", "middle", "dear"]
    assert order(balanced, cheap=Live(ttft_p95_us=9_000), middle=even, dear=even)[0] == "middle"


def test_balanced_moves_on_when_the_best_is_busy() -> None:
    idle, busy = Live(ttft_p95_us=1_000), Live(ttft_p95_us=1_000, in_flight=5)

    found = order(EffectivePolicy(prefer="balanced"), cheap=busy, middle=idle, dear=idle)

    assert found[0] == "middle"


def test_balanced_knows_what_to_do_without_any_figure() -> None:
    assert order(EffectivePolicy(prefer="balanced")) == ["cheap", "middle", "dear"]


def test_free_candidates_are_balanced_too() -> None:
    free = [
        a_candidate(name, cost_input_picos=0, cost_output_picos=0) for name in ("slow", "quick")
    ]

    found = order(
        EffectivePolicy(prefer="balanced"),
        free,
        slow=Live(ttft_p95_us=2_000),
        quick=Live(ttft_p95_us=1_000),
    )

    assert found == ["quick", "slow"]


def test_the_objective_comes_before_the_preference_and_no_data_stands_between() -> None:
    found = order(
        EffectivePolicy(objectives=quick(ttft=800)),
        cheap=Live(ttft_p95_us=900),
        dear=Live(ttft_p95_us=800),
    )

    assert found == ["dear", "middle", "cheap"]


def test_among_those_too_slow_the_faster_one_comes_first() -> None:
    found = order(
        EffectivePolicy(objectives=quick(ttft=800)),
        cheap=Live(ttft_p95_us=3_000),
        middle=Live(ttft_p95_us=2_000),
        dear=Live(ttft_p95_us=1_000),
    )

    assert found == ["dear", "middle", "cheap"]


def test_a_full_backend_goes_last_whatever_else_speaks_for_it() -> None:
    full = a_candidate("full", cost_input_picos=0, cost_output_picos=0, max_concurrency=4)

    found = order(
        EffectivePolicy(objectives=quick(ttft=800)),
        (full, DEAR),
        full=Live(in_flight=4, ttft_p95_us=1),
        dear=Live(ttft_p95_us=5_000),
    )

    assert found == ["dear", "full"]
    assert is_saturated(full, Live(in_flight=4))
    assert not is_saturated(full, Live(in_flight=3))
    assert not is_saturated(DEAR, Live(in_flight=10_000))


def drawn_first(candidates: Sequence[Candidate], draws: int = 4_096) -> Counter[str]:
    return Counter(
        order(candidates=candidates, draw=number * (2**32 // draws))[0] for number in range(draws)
    )


def test_weights_share_equals_by_the_draw() -> None:
    nine, one = a_candidate("nine", weight=9), a_candidate("one", weight=1)

    shares = drawn_first((nine, one))

    assert shares["nine"] == pytest.approx(0.9 * 4_096, abs=2)
    assert shares["one"] == pytest.approx(0.1 * 4_096, abs=2)


def test_a_policy_weighs_backends_otherwise_than_their_targets_do() -> None:
    weighted = EffectivePolicy(prefer="weighted", weights={"cheap": 0, "middle": 9})
    draws = [n << 24 for n in range(256)]

    first = Counter(order(weighted, draw=draw)[0] for draw in draws)

    assert set(first) == {"middle", "dear"}
    assert 0.85 < first["middle"] / 256 < 0.95
    assert {order(weighted, draw=draw)[-1] for draw in draws} == {"cheap"}


def test_the_second_place_is_drawn_by_weight_too() -> None:
    three = [a_candidate(name, weight=weight) for name, weight in (("a", 2), ("b", 1), ("c", 1))]
    seconds = Counter(
        tuple(order(candidates=three, draw=number * 2**20)[:2]) for number in range(4_096)
    )

    assert seconds["b", "a"] == pytest.approx(4_096 / 4 * 2 / 3, rel=0.1)
    assert seconds["a", "b"] == pytest.approx(4_096 / 2 / 2, rel=0.1)


def test_of_many_equals_as_many_are_drawn_as_a_plan_can_have() -> None:
    many = [a_candidate(f"bk_{number}", weight=number % 3) for number in range(200)]
    weightless = {each.backend_id for each in many if not each.weight}

    for draw in range(0, 2**32, 2**28):
        ranked = order(candidates=many, draw=draw)
        assert sorted(ranked) == sorted(each.backend_id for each in many)
        assert weightless.isdisjoint(ranked[:10])


def test_weights_decide_nothing_between_different_prices() -> None:
    heavy = a_candidate("heavy", weight=1_000, cost_input_picos=5)
    light = a_candidate("light", weight=1, cost_input_picos=4)

    assert order(candidates=(heavy, light), draw=2**32 - 1) == ["light", "heavy"]


def test_a_weight_of_zero_is_served_only_after_its_equals() -> None:
    zero, one = a_candidate("zero", weight=0), a_candidate("one", weight=1)

    assert drawn_first((zero, one)) == {"one": 4_096}
    assert order(candidates=(zero, a_candidate("nil", weight=0))) == ["zero", "nil"]


def test_the_same_draw_gives_the_same_order() -> None:
    equals = [a_candidate(name) for name in "abcde"]

    assert order(candidates=equals, draw=123) == order(candidates=equals, draw=123)
    assert sorted(order(candidates=equals, draw=123)) == list("abcde")


def test_of_two_equals_the_one_with_less_to_do_comes_first() -> None:
    pair = (a_candidate("a"), a_candidate("b"))
    busy, idle = Live(in_flight_tokens=900), Live(in_flight_tokens=100)

    for draw in (0, 2**31):
        assert order(candidates=pair, draw=draw, a=busy, b=idle)[0] == "b"
    slow, quick_one = Live(ttft_ewma_us=900), Live(ttft_ewma_us=100, in_flight_tokens=500)
    assert order(candidates=pair, a=slow, b=quick_one)[0] == "b"


def test_what_there_is_to_do_does_not_override_weights() -> None:
    busy = Live(in_flight_tokens=10**6)
    nine, one = a_candidate("nine", weight=9), a_candidate("one", weight=1)
    assert order(candidates=(nine, one), nine=busy)[0] == "nine"

    pair = (a_candidate("a"), a_candidate("b"))
    assert order(EffectivePolicy(prefer="weighted"), pair, a=busy)[0] == "a"


def test_the_ejected_come_after_the_full_and_one_on_its_way_back_takes_its_share() -> None:
    full = a_candidate("full", max_concurrency=1, cost_input_picos=50)
    found = order(candidates=(CHEAP, full), full=Live(in_flight=1), cheap=Live(share=0))
    assert found == ["full", "cheap"]

    draws = [number * 2**20 + 77 for number in range(4_096)]
    first = Counter(order(draw=draw, cheap=Live(share=300))[0] for draw in draws)
    assert first["cheap"] == pytest.approx(0.3 * 4_096, rel=0.1)
    assert first["cheap"] + first["middle"] == 4_096


@pytest.mark.parametrize(
    "seen",
    [
        Live(in_flight=3, room=3),
        Live(waiting=5),
        Live(cache_permille=800),
    ],
)
def test_a_backend_with_more_than_it_takes_well_is_avoided(seen: Live) -> None:
    assert order(cheap=seen) == ["middle", "dear", "cheap"]


def test_room_to_spare_keeps_nobody_back() -> None:
    assert order(cheap=Live(in_flight=2, room=3, waiting=4, cache_permille=799))[0] == "cheap"


def test_a_quarter_apart_is_equally_fast_and_the_cheaper_serves() -> None:
    fast = EffectivePolicy(prefer="fastest")

    assert order(fast, cheap=Live(ttft_p95_us=125), middle=Live(ttft_p95_us=900),
                 dear=Live(ttft_p95_us=100))[0] == "cheap"  # fmt: skip
    assert order(fast, cheap=Live(ttft_p95_us=126), middle=Live(ttft_p95_us=900),
                 dear=Live(ttft_p95_us=100))[0] == "dear"  # fmt: skip


def test_the_fastest_is_not_drowned() -> None:
    found = order(
        EffectivePolicy(prefer="fastest"),
        (CHEAP, DEAR),
        cheap=Live(ttft_p95_us=100, in_flight=16),
        dear=Live(ttft_p95_us=200),
    )
    assert found == ["dear", "cheap"]


def test_one_request_in_a_hundred_tries_another_where_speed_matters() -> None:
    draws = [number * 65_537 for number in range(65_536)]
    slow = {"cheap": Live(ttft_p95_us=2_000), "middle": Live(ttft_p95_us=500),
            "dear": Live(ttft_p95_us=700)}  # fmt: skip

    def first(policy: EffectivePolicy) -> Counter[str]:
        return Counter(order(policy, draw=draw, **slow)[0] for draw in draws)

    fastest = first(EffectivePolicy(prefer="fastest"))
    assert fastest["cheap"] + fastest["dear"] == pytest.approx(655, abs=5)
    held = first(EffectivePolicy(objectives=quick(ttft=800)))
    assert held["cheap"] == pytest.approx(655, abs=5), "too slow, and tried again"
    assert held["dear"] == 0, "quick enough and dearer: nothing to find out"
    slow["cheap"] = Live()
    unknown = first(EffectivePolicy(objectives=quick(ttft=800)))
    assert unknown["cheap"] == pytest.approx(4_096, abs=40), "to know it soon"
    slow["cheap"], slow["dear"] = Live(ttft_p95_us=500), Live()
    assert first(EffectivePolicy(objectives=quick(ttft=800)))["dear"] == 0, "not preferred"
    assert first(EffectivePolicy()) == {"cheap": 65_536}


def test_a_thin_window_breaches_by_its_average() -> None:
    found = order(
        EffectivePolicy(objectives=quick(ttft=800), on_no_data="allow"),
        cheap=Live(ttft_ewma_us=900),
    )

    assert found == ["middle", "dear", "cheap"]
