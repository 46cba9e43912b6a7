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


def test_a_thin_window_is_judged_by_its_moving_average() -> None:
    found = order(
        EffectivePolicy(prefer="fastest"),
        cheap=Live(ttft_ewma_us=900),
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
