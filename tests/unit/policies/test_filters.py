from typing import Any

import pytest

from policies.candidates import Candidate, Live
from policies.compile import DEFAULT, EffectivePolicy
from policies.filters import (
    BREACHES,
    MEETS,
    NO_DATA,
    RULES,
    UNSEEN,
    Reason,
    case_of,
    judge,
    tier_of,
)
from policies.objectives import Objective
from tests.policy_builders import GATEWAY, a_candidate, a_case, an_ask, only, quick, seen_as


def reasons(
    candidate: Candidate,
    policy: EffectivePolicy = DEFAULT,
    live: Live = UNSEEN,
    gateway: frozenset[str] = GATEWAY,
    **ask: Any,
) -> tuple[Reason, ...]:
    case = case_of(policy, an_ask(**ask), gateway)
    (verdict,) = judge(case, [candidate], seen_as(bk_eu=live))
    assert verdict.eligible == (not verdict.reasons)
    return verdict.reasons


def test_a_candidate_that_nothing_speaks_against_is_eligible() -> None:
    assert reasons(a_candidate()) == ()


def test_there_is_one_rule_for_every_reason() -> None:
    assert [reason for reason, _rule in RULES] == list(Reason)


def test_a_candidate_needs_what_the_request_and_the_policy_need() -> None:
    needs_tools = EffectivePolicy(capabilities=frozenset({"tools"}))
    plain = a_candidate(capabilities=frozenset({"chat"}))

    assert reasons(plain) == ()
    assert reasons(plain, needs_tools) == ("capability",)
    assert reasons(plain, capabilities=frozenset({"chat", "vision"})) == ("capability",)
    assert reasons(a_candidate(), needs_tools) == ()


def test_only_a_prompt_far_beyond_the_window_is_kept_back() -> None:
    small = a_candidate(context_window=1_000)

    assert reasons(small, input_estimate=1_250) == ()
    assert reasons(small, input_estimate=1_251) == ("context",)
    assert reasons(a_candidate(context_window=None), input_estimate=10**9) == ()


def test_the_input_bound_never_speaks_of_the_context_window() -> None:
    assert reasons(a_candidate(context_window=1_000), input_bound=10**6) == ()


@pytest.mark.parametrize(
    ("jurisdictions", "eligible"),
    [({"DE"}, True), ({"EU"}, True), ({"DE", "US"}, False), ({"US"}, False), (set(), False)],
)
def test_residency_holds_for_every_law_that_reaches_the_backend(
    jurisdictions: set[str], eligible: bool
) -> None:
    eu = EffectivePolicy(residency=only("EU"))

    found = reasons(a_candidate(jurisdictions=frozenset(jurisdictions)), eu)

    assert found == (() if eligible else ("residency",))


@pytest.mark.parametrize("gateway", [frozenset(), frozenset({"US"}), frozenset({"DE", "US"})])
def test_residency_holds_for_the_gateway_itself(gateway: frozenset[str]) -> None:
    eu = EffectivePolicy(residency=only("EU"))

    assert reasons(a_candidate(), eu, gateway=gateway) == ("residency",)
    assert reasons(a_candidate(), gateway=gateway) == ()


def test_a_candidate_must_have_a_price_for_what_the_request_uses() -> None:
    no_output = a_candidate(charge_output_picos=None)

    assert reasons(a_candidate(charge_input_picos=None)) == ("unpriced",)
    assert reasons(no_output) == ("unpriced",)
    assert reasons(no_output, output_wanted=0) == ()


def test_a_ceiling_per_million_is_met_when_equal() -> None:
    dear = {"charge_input_picos": 5, "charge_output_picos": 7}

    assert reasons(a_candidate(**dear), EffectivePolicy(max_input_picos_per_token=5)) == ()
    assert reasons(a_candidate(**dear), EffectivePolicy(max_input_picos_per_token=4)) == (
        "price_ceiling",
    )
    assert reasons(a_candidate(**dear), EffectivePolicy(max_output_picos_per_token=7)) == ()
    assert reasons(a_candidate(**dear), EffectivePolicy(max_output_picos_per_token=6)) == (
        "price_ceiling",
    )


def test_a_ceiling_on_output_means_nothing_where_no_output_is_made() -> None:
    policy = EffectivePolicy(max_output_picos_per_token=0)

    assert reasons(a_candidate(), policy, output_wanted=0) == ()


def test_a_ceiling_per_request_bounds_the_worst_charge() -> None:
    worst = 1_000 * 2_000_000 + 100 * 8_000_000

    assert reasons(a_candidate(), EffectivePolicy(max_per_request_picos=worst)) == ()
    assert reasons(a_candidate(), EffectivePolicy(max_per_request_picos=worst - 1)) == (
        "request_ceiling",
    )


def test_a_placement_must_be_permitted() -> None:
    edge = EffectivePolicy(placements=frozenset({"edge"}))

    assert reasons(a_candidate(placement="edge"), edge) == ()
    assert reasons(a_candidate(placement="cloud"), edge) == ("placement",)


def test_a_backend_that_is_down_is_unavailable() -> None:
    assert reasons(a_candidate(), live=Live(available=False)) == ("unavailable",)
    assert reasons(a_candidate(), live=Live(rest_ms=1)) == ("resting",)


def test_a_breached_objective_excludes_only_where_the_policy_refuses() -> None:
    slow = Live(ttft_p95_us=900_000)
    refusing = EffectivePolicy(objectives=quick(ttft=800_000), on_breach="refuse")

    assert reasons(a_candidate(), EffectivePolicy(objectives=quick(ttft=800_000)), slow) == ()
    assert reasons(a_candidate(), refusing, slow) == ("slo",)
    assert reasons(a_candidate(), refusing, Live()) == ()
    assert reasons(a_candidate(), EffectivePolicy(on_breach="refuse"), slow) == ()


def test_a_breach_that_sheds_leaves_one_request_at_a_time() -> None:
    shedding = EffectivePolicy(objectives=quick(total=800_000), on_breach="shed")

    assert reasons(a_candidate(), shedding, Live(total_p95_us=900_000, in_flight=1)) == ("slo",)
    assert reasons(a_candidate(), shedding, Live(total_p95_us=900_000)) == ()
    assert reasons(a_candidate(), shedding, Live(total_p95_us=800_000, in_flight=9)) == ()


def test_who_is_not_known_to_be_quick_enough_may_be_refused() -> None:
    sure = EffectivePolicy(objectives=quick(ttft=800_000), on_no_data="refuse")

    assert reasons(a_candidate(), sure, Live()) == ("slo",)
    assert reasons(a_candidate(), sure, Live(ttft_p95_us=800_000)) == ()
    assert reasons(a_candidate(), sure, Live(ttft_p95_us=900_000)) == ()


def test_an_objective_of_its_own_percentile_and_window_is_measured_so() -> None:
    own = Objective("ttft", 100, percentile=99, window_s=20)
    policy = EffectivePolicy(objectives=(own,), on_breach="refuse")

    assert reasons(a_candidate(), policy, Live(ttft_p95_us=900)) == ()
    assert reasons(a_candidate(), policy, Live(others={own.view: 100})) == ()
    assert reasons(a_candidate(), policy, Live(others={own.view: 101})) == ("slo",)


@pytest.mark.parametrize(
    ("window", "excluded"), [(None, True), (31_999, True), (32_000, False), (32_001, False)]
)
def test_a_context_window_must_be_known_to_be_large_enough(
    window: int | None, excluded: bool
) -> None:
    found = reasons(a_candidate(context_window=window), EffectivePolicy(least_context=32_000))

    assert found == (("window",) if excluded else ())


def test_a_backend_must_be_cleared_for_every_class_of_the_data() -> None:
    policy = EffectivePolicy(data_classes=frozenset({"health", "payment"}))

    assert reasons(a_candidate(), policy) == ("data_class",)
    assert reasons(a_candidate(data_classes=frozenset({"health"})), policy) == ("data_class",)
    cleared = a_candidate(data_classes=frozenset({"health", "payment", "public"}))
    assert reasons(cleared, policy) == ()


def test_every_reason_is_named_in_the_order_of_the_rules() -> None:
    policy = EffectivePolicy(
        residency=only("US"),
        capabilities=frozenset({"audio"}),
        placements=frozenset(),
        least_context=2,
        data_classes=frozenset({"health"}),
        max_input_picos_per_token=0,
        max_per_request_picos=0,
        objectives=quick(ttft=1),
        on_breach="refuse",
    )
    bad = a_candidate(context_window=1, charge_output_picos=None)

    found = reasons(bad, policy, Live(available=False, rest_ms=1, ttft_p95_us=9))

    assert found == tuple(reason for reason in Reason if reason is not Reason.REQUEST_CEILING)


def test_rules_that_a_policy_does_not_need_are_left_out() -> None:
    assert {reason for reason, _rule in a_case(EffectivePolicy()).rules} == {
        "capability",
        "context",
        "unpriced",
        "unavailable",
        "resting",
    }


@pytest.mark.parametrize(
    ("ttft", "tpot", "tier"),
    [
        (800, 60, MEETS),
        (801, 60, BREACHES),
        (800, 61, BREACHES),
        (None, 60, NO_DATA),
        (800, None, NO_DATA),
        (None, None, NO_DATA),
        (None, 61, BREACHES),
        (801, None, BREACHES),
    ],
)
def test_a_tier_is_the_worst_of_its_objectives(
    ttft: int | None, tpot: int | None, tier: int
) -> None:
    policy = EffectivePolicy(objectives=quick(ttft=800, tpot=60))

    assert tier_of(policy, Live(ttft_p95_us=ttft, tpot_p95_us=tpot)) == tier
