from collections.abc import Mapping

from policies.candidates import Candidate, Live
from policies.compile import DEFAULT, EffectivePolicy
from policies.panel import Panel
from policies.route import NOWHERE, Plan, cheapest, route
from tests.policy_builders import GATEWAY, a_candidate, an_ask, only, seen_as


def planned(
    policy: EffectivePolicy = DEFAULT,
    *candidates: Candidate,
    live: Mapping[tuple[str, str], Live] = NOWHERE,
) -> Plan:
    plan = route(policy, an_ask(), candidates, live, GATEWAY, 0)
    assert isinstance(plan, Plan)
    return plan


def test_a_plan_holds_the_eligible_in_order_and_a_verdict_for_everyone() -> None:
    german = a_candidate("bk_de")
    american = a_candidate("bk_us", jurisdictions=frozenset({"US"}), cost_input_picos=0)
    french = a_candidate("bk_fr", jurisdictions=frozenset({"FR"}), cost_input_picos=0)

    plan = planned(EffectivePolicy(residency=only("EU")), german, american, french)

    assert plan.attempts == (french, german)
    assert [(v.backend_id, v.eligible, v.reasons) for v in plan.verdicts] == [
        ("bk_de", True, ()),
        ("bk_us", False, ("residency",)),
        ("bk_fr", True, ()),
    ]


def test_a_plan_is_cut_at_the_number_of_attempts() -> None:
    many = [a_candidate(f"bk_{number}", cost_input_picos=number) for number in range(5)]

    assert len(planned(EffectivePolicy(), *many).attempts) == 3
    assert planned(EffectivePolicy(max_attempts=1), *many).attempts == (many[0],)
    assert len(planned(EffectivePolicy(), *many).verdicts) == 5


def test_one_backend_may_serve_two_upstream_models_of_different_health() -> None:
    small, large = a_candidate(upstream_model="small"), a_candidate(upstream_model="large")
    live = {("bk_eu", "small"): Live(available=False)}

    assert planned(EffectivePolicy(), small, large, live=live).attempts == (large,)


def test_a_backend_that_heals_is_back_in_the_plan() -> None:
    live = seen_as(bk_eu=Live(available=False))
    other = a_candidate("bk_2")

    assert planned(EffectivePolicy(), a_candidate(), other, live=live).attempts == (other,)
    live[("bk_eu", "smollm2")].available = True
    assert len(planned(EffectivePolicy(), a_candidate(), other, live=live).attempts) == 2


def test_the_cheapest_are_all_who_charge_least_for_what_is_needed() -> None:
    dear = a_candidate("bk_dear", charge_output_picos=9_000_000)
    one, other = a_candidate("bk_1"), a_candidate("bk_2", cost_input_picos=0)
    abroad = a_candidate("bk_us", jurisdictions=frozenset({"US"}), charge_output_picos=0)
    policy = EffectivePolicy(residency=only("EU"))
    plan = planned(policy, dear, one, other, abroad)
    panel = Panel(policy, (dear, one, other, abroad))

    assert cheapest(panel, an_ask(), plan.verdicts, NOWHERE, 0, 100) == (other, one)


def test_who_is_cheapest_depends_on_how_much_output_is_needed() -> None:
    talker = a_candidate("bk_talker", charge_input_picos=3_000_000, charge_output_picos=1)
    reader = a_candidate("bk_reader", charge_input_picos=0, charge_output_picos=90_000_000)
    panel = Panel(DEFAULT, (talker, reader))
    verdicts = planned(DEFAULT, talker, reader).verdicts

    def chosen(output: int) -> tuple[Candidate, ...]:
        return cheapest(panel, an_ask(), verdicts, NOWHERE, 0, output)

    assert chosen(1) == (reader,)
    assert chosen(100) == (talker,)
