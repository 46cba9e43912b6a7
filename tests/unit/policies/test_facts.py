"""A decision is kept as facts, and made again from them."""

from typing import Any

import msgspec

from policies import facts
from policies.candidates import Live
from policies.compile import EffectivePolicy
from policies.facts import DECODER, STANDINGS, Recorder, Standing
from policies.filters import RULES, Reason
from policies.objectives import Objective
from policies.panel import Panel
from policies.route import Plan, decide
from tests.policy_builders import GATEWAY, a_candidate, an_ask, only, seen_as

CANDIDATES = (a_candidate(), a_candidate("bk_us", jurisdictions=frozenset({"US"})))
POLICY = EffectivePolicy(
    residency=only("EU"), prefer=("on_prem", "cloud"), objectives=(Objective("ttft", 800_000),)
)


def a_standing(**changes: Any) -> Standing:
    made = Standing(
        model="chat-default",
        timezone="Europe/Berlin",
        documents=(facts.DocumentRef("team", 1, "eu", "policy_1", 2),),
        policy=POLICY,
        candidates=CANDIDATES,
        gateway_jurisdictions=GATEWAY,
    )
    return msgspec.structs.replace(made, **changes)


def test_a_decision_is_made_again_from_its_facts_alone() -> None:
    ask = an_ask(capabilities=frozenset({"chat", "tools"}))
    live = seen_as(bk_eu=Live(ttft_p95_us=300_000, samples=50, in_flight=3))
    plan = decide(Panel(POLICY, CANDIDATES), ask, live, GATEWAY, 77)
    assert isinstance(plan, Plan)

    recorder = Recorder(a_standing())
    packed = recorder.facts(ask, live, plan.verdicts, plan.attempts, 77, 5)
    read, standing = DECODER.decode(packed), STANDINGS.decode(recorder.packed)

    assert standing == a_standing()
    assert (read.ask, read.draw, read.order, read.against) == (ask, 77, (0,), (0, 4))
    again = decide(
        Panel(standing.policy, standing.candidates),
        read.ask,
        facts.live_of(standing, read),
        standing.gateway_jurisdictions,
        read.draw,
    )
    assert again == plan


def test_what_is_seen_is_kept_as_it_was_at_that_moment() -> None:
    seen = Live(in_flight=1)
    recorder = Recorder(a_standing())
    packed = recorder.facts(an_ask(), seen_as(bk_eu=seen), (), (), 0, 5)
    seen.in_flight = 9

    live = facts.live_of(a_standing(), DECODER.decode(packed))
    assert live["bk_eu", "smollm2"].in_flight == 1
    assert len(live) == 1


def test_figures_that_only_some_policies_ask_for_are_kept_and_sealed_too() -> None:
    seen = seen_as(bk_eu=Live(others={Objective("ttft", 1, 99, 20).view: 7}))
    read = DECODER.decode(Recorder(a_standing()).facts(an_ask(), seen, (), (), 0, 5))

    sealed = facts.ENCODER.encode(facts.Record("req_1", "t_1", (), "k_1", {}, read))

    assert facts.live_of(a_standing(), facts.RECORDS.decode(sealed).facts) == seen


def test_a_refusal_keeps_what_was_planned() -> None:
    recorder = Recorder(a_standing())
    packed = recorder.facts(an_ask(), {}, (), CANDIDATES[:1], 0, 5)

    refused = DECODER.decode(facts.refused(packed, "insufficient_quota"))

    assert (refused.refusal, refused.order) == ("insufficient_quota", (0,))


def test_a_hedge_is_added_to_what_was_planned() -> None:
    packed = Recorder(a_standing()).facts(an_ask(), {}, (), CANDIDATES, 0, 5)

    assert DECODER.decode(packed).hedged is None
    assert DECODER.decode(facts.hedged(packed, 1)).hedged == 1


def test_the_digest_names_the_standing_whatever_the_order_of_its_sets() -> None:
    one = a_standing(gateway_jurisdictions=frozenset(["DE", "FR", "NL"]))
    other = a_standing(gateway_jurisdictions=frozenset(["NL", "FR", "DE"]))

    assert Recorder(one).digest == Recorder(other).digest
    assert Recorder(one).digest != Recorder(a_standing()).digest
    assert facts.digest_of(Recorder(one).packed) == Recorder(one).digest


def test_every_reason_has_a_bit_of_its_own() -> None:
    everything = tuple(reason for reason, _ in RULES)

    assert facts.reasons_of(facts.bits_of(everything)) == everything
    assert set(everything) == set(Reason)
