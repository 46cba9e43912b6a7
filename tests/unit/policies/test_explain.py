from typing import Any

import msgspec
import pytest

from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy, compile_policies
from policies.explain import explain, explain_policy
from policies.filters import Reason
from tests.policy_builders import GATEWAY, a_candidate, a_document, an_ask, only, quick, seen_as

POLICY = compile_policies(
    [
        ("tenant", 0, "floor", a_document(require={"residency": ["EU"]})),
        (
            "team",
            1,
            "thrift",
            a_document(
                cost={"max_per_request": "0.05", "max_output_per_million": "15.00"},
                slo={"ttft_p95_ms": 800},
                require={"placements": ["on_prem", "edge"]},
                prefer=["edge", "on_prem"],
            ),
        ),
    ],
    "chat-default",
)


def explained(
    policy: EffectivePolicy,
    *candidates: Candidate,
    live: dict[tuple[str, str], Live] | None = None,
    gateway: frozenset[str] = GATEWAY,
    **ask: Any,
) -> dict[str, Any]:
    plain = explain(policy, an_ask(**ask), candidates, live or {}, gateway, 0)
    assert msgspec.json.decode(msgspec.json.encode(plain)) == plain
    return plain


def test_every_candidate_is_explained_with_its_place_in_the_plan() -> None:
    german, american = a_candidate("bk_de"), a_candidate("bk_us", jurisdictions=frozenset({"US"}))

    plain = explained(POLICY, american, german, live=seen_as(bk_de=Live(ttft_p95_us=1_500)))

    assert plain["decision"] == "serve"
    assert plain["refusal"] is None
    assert plain["attempts"] == [{"backend_id": "bk_de", "upstream_model": "smollm2"}]
    us, de = plain["candidates"]
    assert (us["eligible"], us["attempt"]) == (False, None)
    assert us["reasons"] == ["residency: the law of US reaches the backend; permitted: EU"]
    assert (de["eligible"], de["attempt"], de["reasons"]) == (True, 0, [])
    assert (de["expected_cost"], de["worst_charge"]) == ("0.00065", "0.0028")
    assert de["ttft_p95_ms"] == 2


def test_a_refusal_is_explained_as_the_caller_hears_it() -> None:
    plain = explained(POLICY, a_candidate(jurisdictions=frozenset()))

    assert plain["decision"] == "refuse"
    assert plain["refusal"]["code"] == "residency_violation"
    assert plain["attempts"] == []
    assert plain["candidates"][0]["reasons"] == [
        "residency: the backend declares no jurisdiction; permitted: EU"
    ]


def test_every_field_says_which_document_set_it() -> None:
    plain = explain_policy(POLICY)

    assert plain["residency"] == {"value": ["EU"], "set_by": "floor"}
    assert plain["max_per_request"] == {"value": "0.05", "set_by": "thrift"}
    assert plain["max_output_per_million"] == {"value": "15", "set_by": "thrift"}
    objective = {"metric": "ttft", "percentile": 95, "window_s": 60, "most_ms": 800}
    assert plain["objectives"] == {"value": [objective], "set_by": "thrift"}
    assert plain["placements"] == {"value": ["edge", "on_prem"], "set_by": "thrift"}
    assert plain["prefer"] == {"value": ["edge", "on_prem"], "set_by": "thrift"}
    assert plain["clamp"] == {"value": True, "set_by": None}
    assert plain["least_context"] == {"value": None, "set_by": None}


def test_a_policy_that_permits_nothing_says_so() -> None:
    assert explain_policy(EffectivePolicy(residency=frozenset()))["residency"]["value"] == []


@pytest.mark.parametrize(
    ("policy", "changes", "live", "sentence"),
    [
        ({"capabilities": frozenset({"vision"})}, {}, Live(), "capability: does not offer vision"),
        (
            {},
            {"context_window": 9},
            Live(),
            "context: about 250 tokens of prompt, a context window of 9",
        ),
        ({}, {"charge_input_picos": None}, Live(), "unpriced: no charge price for input tokens"),
        ({}, {"charge_output_picos": None}, Live(), "unpriced: no charge price for output tokens"),
        (
            {"max_output_picos_per_token": 5_000_000, "max_input_picos_per_token": 2_000_000},
            {},
            Live(),
            "price_ceiling: output costs 8 per million, at most 5 allowed",
        ),
        (
            {"max_per_request_picos": 10**9},
            {},
            Live(),
            "request_ceiling: could cost 0.0028, at most 0.001 a request allowed",
        ),
        (
            {"placements": frozenset({"edge"})},
            {},
            Live(),
            "placement: placed on_prem; permitted: edge",
        ),
        ({}, {}, Live(available=False), "unavailable: the circuit breaker is open after failures"),
        (
            {"objectives": quick(ttft=800_000, tpot=60_000), "on_breach": "refuse"},
            {},
            Live(ttft_p95_us=900_001, tpot_p95_us=60_000),
            "slo: p95 of TTFT is 901 ms, the objective 800 ms",
        ),
        (
            {"objectives": quick(total=800_000), "on_breach": "shed"},
            {},
            Live(total_p95_us=900_000, in_flight=2),
            (
                "slo: p95 of the whole answer is 900 ms, the objective 800 ms, "
                "2 requests are there already"
            ),
        ),
        (
            {"objectives": quick(tpot=800_000), "on_no_data": "refuse"},
            {},
            Live(),
            "slo: too few samples in 60 s for the p95 of TPOT",
        ),
        (
            {"least_context": 10_000},
            {},
            Live(),
            "window: a context window of 8192, at least 10000 wanted",
        ),
        (
            {"data_classes": frozenset({"health", "payment"})},
            {"data_classes": frozenset({"health"})},
            Live(),
            "data_class: not cleared for payment data",
        ),
    ],
)
def test_every_reason_is_a_sentence_with_its_figures(
    policy: dict[str, Any], changes: dict[str, Any], live: Live, sentence: str
) -> None:
    plain = explained(EffectivePolicy(**policy), a_candidate(**changes), live=seen_as(bk_eu=live))

    assert plain["candidates"][0]["reasons"] == [sentence]


@pytest.mark.parametrize(
    ("gateway", "stands"),
    [(frozenset(), "an undeclared jurisdiction"), (frozenset({"US"}), "US")],
)
def test_a_gateway_in_the_wrong_place_is_the_reason(gateway: frozenset[str], stands: str) -> None:
    plain = explained(EffectivePolicy(residency=only("EU")), a_candidate(), gateway=gateway)

    assert plain["candidates"][0]["reasons"] == [
        f"residency: the gateway stands in {stands}; permitted: EU"
    ]


def test_unpriced_candidates_have_no_worst_charge() -> None:
    plain = explained(EffectivePolicy(), a_candidate(charge_input_picos=None))

    assert plain["candidates"][0]["worst_charge"] is None
    assert plain["candidates"][0]["reasons"][0].startswith(Reason.UNPRICED)


def test_what_cannot_be_known_of_a_candidate_is_not_told_as_nothing_measured() -> None:
    plain = explain(POLICY, an_ask(), [a_candidate()], None, GATEWAY, 0)

    (candidate,) = plain["candidates"]
    assert plain["decision"] == "serve"
    for seen in ("samples", "ttft_p95_ms", "in_flight", "saturated", "share_permille"):
        assert candidate[seen] is None
