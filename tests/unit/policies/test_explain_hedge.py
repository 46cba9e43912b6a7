import msgspec
import pytest

from policies import facts
from policies.candidates import Live
from policies.compile import EffectivePolicy
from policies.explain import explain
from policies.explain_hedge import explain_hedge, hedge_of
from policies.facts import DECODER, Facts, Recorder, Standing
from policies.filters import Reason
from policies.hedging import WHY_NOT
from policies.route import NOWHERE, Plan, route
from tests.policy_builders import GATEWAY, a_candidate, an_ask, only, seen_as

HEDGED = EffectivePolicy(hedge_after_ms=40)


def decided(policy: EffectivePolicy, *outside: str, **changes: object) -> Facts:
    """On two backends in the EU, and on those outside of it."""
    abroad = [a_candidate(each, jurisdictions=frozenset({"US"})) for each in outside]
    candidates = (a_candidate("bk_1"), a_candidate("bk_2"), *abroad)
    plan = route(policy, an_ask(), candidates, NOWHERE, GATEWAY, 0)
    assert isinstance(plan, Plan)
    standing = Standing(
        model="chat",
        timezone="UTC",
        documents=(),
        policy=policy,
        candidates=candidates,
        gateway_jurisdictions=GATEWAY,
    )
    packed = Recorder(standing).facts(an_ask(), {}, plan.verdicts, plan.attempts, 0, 1)
    return msgspec.structs.replace(DECODER.decode(packed), **changes)


@pytest.mark.parametrize(
    ("policy", "planned", "against", "why"),
    [
        (EffectivePolicy(), 2, [(), ()], "off: no policy sets retries.hedge_after_ms"),
        (
            msgspec.structs.replace(HEDGED, hedge_percent=0), 2, [(), ()],
            "off: retries.hedge_percent is 0",
        ),
        (HEDGED, 1, [()], "no second candidate: the model has one target"),
        (
            msgspec.structs.replace(HEDGED, max_attempts=1), 1, [(), ()],
            "no second candidate: retries.max_attempts is 1",
        ),
        (
            HEDGED, 1, [(), (Reason.RESIDENCY, Reason.SLO), (Reason.UNAVAILABLE,)],
            "no second candidate: residency keeps 1 out, unavailable keeps 1 out",
        ),
        (HEDGED, 1, [(), ()], "no second candidate: no budget covers another"),
        (HEDGED, 0, [(Reason.RESIDENCY,)], "nothing is sent"),
        (HEDGED, 2, [(), ()], None),
    ],
)  # fmt: skip
def test_what_forbids_a_hedge_before_anything_is_sent_is_said(
    policy: EffectivePolicy, planned: int, against: list[tuple[Reason, ...]], why: str | None
) -> None:
    assert explain_hedge(policy, planned, against)["why_not"] == why


@pytest.mark.parametrize("word", WHY_NOT)
def test_a_hedge_that_was_due_and_not_begun_has_its_reason_in_the_facts(word: str) -> None:
    packed = facts.unhedged(facts.ENCODER.encode(decided(HEDGED)), word)

    assert hedge_of(HEDGED, DECODER.decode(packed))["why_not"] == WHY_NOT[word]


def test_a_hedge_that_was_begun_is_told_with_its_number() -> None:
    packed = facts.hedged(facts.ENCODER.encode(decided(HEDGED)), 1)

    told = hedge_of(HEDGED, DECODER.decode(packed))
    assert told == {"after_ms": 40, "percent": 5, "attempt": 1, "why_not": None}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "no attempt was silent for 40 ms"),
        ({"refusal": "insufficient_quota"}, "nothing was sent"),
        ({"shadow_of": "req_1"}, "a shadow is sent once"),
        ({"unhedged": None}, "unknown: it was decided before reasons were recorded"),
        ({"afforded": (1,)}, "no second candidate: no budget covers another"),
        ({"unhedged": "of a later release"}, "of a later release"),
    ],
)
def test_a_hedge_that_was_never_due_is_told_too(changes: dict[str, object], why: str) -> None:
    assert hedge_of(HEDGED, decided(HEDGED, **changes))["why_not"] == why


def test_facts_from_before_the_reasons_were_recorded_are_read() -> None:
    older = msgspec.msgpack.encode(
        msgspec.msgpack.decode(facts.ENCODER.encode(decided(HEDGED)))[:-2]
    )

    assert hedge_of(HEDGED, DECODER.decode(older))["why_not"].startswith("unknown")


def test_explain_names_who_would_be_asked_beside_the_first() -> None:
    policy = msgspec.structs.replace(HEDGED, residency=only("EU"))
    one, other = a_candidate("bk_1"), a_candidate("bk_2", cost_input_picos=2_000_000)
    abroad = a_candidate("bk_us", jurisdictions=frozenset({"US"}), cost_input_picos=0)

    def hedge(*candidates: object, **live: Live) -> dict[str, object]:
        told = explain(policy, an_ask(), candidates, seen_as(**live), GATEWAY, 0)  # type: ignore[arg-type]
        return dict(told["hedge"])

    assert hedge(one, other, abroad)["to"] == {"backend_id": "bk_2", "upstream_model": "smollm2"}
    assert hedge(one, abroad) == {
        "after_ms": 40,
        "percent": 5,
        "to": None,
        "why_not": "no second candidate: residency keeps 1 out",
    }
    full = hedge(one, other, bk_2=Live(room=1, in_flight=1))
    assert (full["to"], full["why_not"]) == (None, WHY_NOT["full"])
