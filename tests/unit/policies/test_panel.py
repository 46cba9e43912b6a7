from policies.candidates import Live
from policies.compile import EffectivePolicy
from policies.filters import Reason
from policies.panel import Panel
from policies.route import NOWHERE
from tests.policy_builders import GATEWAY, a_candidate, an_ask, only, seen_as


def reasons(panel: Panel, live: Live | None = None, **ask: object) -> list[tuple[Reason, ...]]:
    seen = NOWHERE if live is None else seen_as(bk_eu=live)
    _, verdicts, _ = panel.judge(an_ask(**ask), seen, GATEWAY)
    return [verdict.reasons for verdict in verdicts]


def test_a_backend_that_went_down_is_excluded_and_comes_back() -> None:
    panel = Panel(EffectivePolicy(), [a_candidate()])

    assert reasons(panel) == [()]
    assert reasons(panel, Live(available=False)) == [(Reason.UNAVAILABLE,)]
    assert reasons(panel, Live()) == [()]


def test_reasons_of_the_moment_and_lasting_ones_stand_together_in_the_order_of_the_rules() -> None:
    american = a_candidate(jurisdictions=frozenset({"US"}), context_window=10)
    panel = Panel(EffectivePolicy(residency=only("EU")), [american])

    assert reasons(panel, Live(available=False)) == [
        (Reason.CONTEXT, Reason.RESIDENCY, Reason.UNAVAILABLE)
    ]


def test_what_one_kind_of_request_may_do_another_may_not() -> None:
    panel = Panel(EffectivePolicy(), [a_candidate(capabilities=frozenset({"chat"}))])

    assert reasons(panel) == [()]
    assert reasons(panel, capabilities=frozenset({"chat", "vision"})) == [(Reason.CAPABILITY,)]
    assert reasons(panel) == [()]
