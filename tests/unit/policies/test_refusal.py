from collections.abc import Mapping
from typing import Any

import pytest

from policies.candidates import Candidate, Live
from policies.compile import DEFAULT, EffectivePolicy
from policies.decision import Deny, DenyCode
from policies.route import NOWHERE, route
from tests.policy_builders import GATEWAY, a_candidate, an_ask, only, quick, seen_as

EU = EffectivePolicy(residency=only("EU"), sources={"residency": "eu-only"})
AMERICAN = a_candidate("bk_us", jurisdictions=frozenset({"US"}))


def refused(
    policy: EffectivePolicy = DEFAULT,
    *candidates: Candidate,
    live: Mapping[tuple[str, str], Live] = NOWHERE,
    gateway: frozenset[str] = GATEWAY,
    draw: int = 0,
    **ask: Any,
) -> Deny:
    deny = route(policy, an_ask(**ask), candidates or (a_candidate(),), live, gateway, draw)
    assert isinstance(deny, Deny)
    assert "bk_" not in deny.message
    return deny


def test_the_rule_that_removed_the_last_candidate_names_the_refusal() -> None:
    down = seen_as(bk_eu=Live(available=False))

    assert refused(EU, AMERICAN).code == DenyCode.RESIDENCY_VIOLATION
    assert refused(EU, a_candidate(), AMERICAN, live=down).code == DenyCode.NO_BACKEND
    assert (
        refused(EU, AMERICAN, a_candidate(charge_input_picos=None)).code == DenyCode.UNPRICED_MODEL
    )


def test_a_capability_that_is_missing_is_named() -> None:
    deny = refused(capabilities=frozenset({"chat", "vision"}))

    assert deny.code == DenyCode.UNSUPPORTED_CAPABILITY
    assert "does not offer vision" in deny.message
    assert deny.param == "model"


def test_the_nearest_candidate_says_what_is_missing() -> None:
    bare = a_candidate("bk_bare", capabilities=frozenset())

    deny = refused(
        EffectivePolicy(), bare, a_candidate(), capabilities=frozenset({"chat", "vision"})
    )

    assert "offer vision;" in deny.message


def test_a_prompt_that_fits_nowhere_is_told_the_largest_window() -> None:
    small, large = a_candidate(context_window=100), a_candidate("bk_2", context_window=200)

    deny = refused(EffectivePolicy(), small, large, input_estimate=10_000)

    assert deny.code == DenyCode.CONTEXT_LENGTH_EXCEEDED
    assert "about 10000 tokens" in deny.message
    assert "at most 200" in deny.message
    assert deny.param == "messages"
    assert (
        refused(EffectivePolicy(), small, input_estimate=999, operation="embeddings").param is None
    )


def test_residency_says_where_and_which_policy() -> None:
    deny = refused(EU, AMERICAN)

    assert "certain to stay in EU (policy eu-only)" in deny.message
    assert deny.retry_after_ms is None


def test_a_gateway_without_a_jurisdiction_is_its_operators_business() -> None:
    assert "METERHOUSE_JURISDICTION" in refused(EU, gateway=frozenset()).message


def test_a_gateway_elsewhere_says_where_it_stands() -> None:
    message = refused(EU, gateway=frozenset({"US", "GB"})).message

    assert "stands in GB and US" in message
    assert "a gateway in EU" in message


def test_policies_that_leave_no_jurisdiction_are_named() -> None:
    nothing = EffectivePolicy(residency=frozenset(), sources={"residency": "eu-only, us-only"})

    assert "(policy eu-only, us-only)" in refused(nothing).message


def test_a_model_without_a_price_is_its_administrators_business() -> None:
    deny = refused(EffectivePolicy(), a_candidate(charge_input_picos=None))

    assert deny.code == DenyCode.UNPRICED_MODEL
    assert "its administrator must add one" in deny.message


def test_a_ceiling_per_million_is_written_as_it_was_set() -> None:
    policy = EffectivePolicy(
        max_input_picos_per_token=1, max_output_picos_per_token=7_500_000, sources={}
    )

    deny = refused(policy)

    assert deny.code == DenyCode.COST_CEILING_EXCEEDED
    assert "0.000001 per million input tokens and 7.5 per million output tokens" in deny.message


def test_a_ceiling_per_request_says_how_far_above_it_the_cheapest_is() -> None:
    deny = refused(
        EffectivePolicy(max_per_request_picos=10**9, sources={"max_per_request_picos": "thrift"}),
        a_candidate(),
        a_candidate("bk_2", charge_input_picos=9_000_000),
    )

    assert deny.code == DenyCode.COST_CEILING_EXCEEDED
    assert "up to 0.0028, above the ceiling of 0.001 per request (policy thrift)" in deny.message


def test_a_placement_that_no_backend_has_is_not_allowed() -> None:
    deny = refused(
        EffectivePolicy(placements=frozenset({"on_prem", "edge"})), a_candidate(placement="cloud")
    )

    assert deny.code == DenyCode.MODEL_NOT_ALLOWED
    assert "placed edge or on_prem" in deny.message


def test_no_placement_at_all_is_said_so() -> None:
    assert "placed nowhere" in refused(EffectivePolicy(placements=frozenset())).message


@pytest.mark.parametrize(("draw", "wait"), [(0, 1_000), (2**31, 3_000), (2**32 - 1, 4_999)])
def test_callers_of_what_is_down_are_spread_over_four_seconds(draw: int, wait: int) -> None:
    deny = refused(live=seen_as(bk_eu=Live(available=False)), draw=draw)

    assert deny.code == DenyCode.NO_BACKEND
    assert deny.retry_after_ms == wait


@pytest.mark.parametrize("metric", ["ttft", "tpot", "total"])
@pytest.mark.parametrize("on_breach", ["refuse", "shed"])
def test_a_breach_that_refuses_is_an_overload(metric: str, on_breach: str) -> None:
    policy = EffectivePolicy(
        on_breach=on_breach, objectives=quick(**{metric: 1}), sources={"objectives": "quick"}
    )
    slow = Live(ttft_p95_us=2, tpot_p95_us=2, total_p95_us=2, in_flight=1)

    deny = refused(policy, live=seen_as(bk_eu=slow))

    assert deny.code == DenyCode.OVERLOADED
    assert "(policy quick)" in deny.message
    assert deny.retry_after_ms is not None


def test_a_speed_that_nobody_knows_can_be_refused() -> None:
    policy = EffectivePolicy(on_no_data="refuse", objectives=quick(ttft=1))

    deny = refused(policy)

    assert deny.code == DenyCode.OVERLOADED
    assert "not known to be quick enough" in deny.message


def test_a_small_context_window_and_data_of_a_class_say_what_is_lacking() -> None:
    small = refused(EffectivePolicy(least_context=10_000, sources={"least_context": "long"}))
    uncleared = refused(
        EffectivePolicy(data_classes=frozenset({"health"}), sources={"data_classes": "ward"})
    )

    assert small.code == DenyCode.UNSUPPORTED_CAPABILITY
    assert "at most 8192" in small.message
    assert "take 10000 (policy long)" in small.message
    assert uncleared.code == DenyCode.MODEL_NOT_ALLOWED
    assert "cleared for health data (policy ward)" in uncleared.message


def test_a_model_without_targets_has_no_backend() -> None:
    deny = route(EffectivePolicy(), an_ask(), (), NOWHERE, GATEWAY, 0)

    assert deny.code == DenyCode.NO_BACKEND
    assert deny.retry_after_ms is None


def test_when_all_rest_the_caller_is_told_when_the_first_is_back() -> None:
    live = seen_as(a=Live(rest_ms=9_000), b=Live(rest_ms=4_000))

    denied = route(
        EffectivePolicy(), an_ask(), (a_candidate("a"), a_candidate("b")), live, GATEWAY, 2**31
    )

    assert isinstance(denied, Deny)
    assert denied.code is DenyCode.OVERLOADED
    assert denied.retry_after_ms == 4_500
