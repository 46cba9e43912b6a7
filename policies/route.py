"""Filter, rank, plan: where one request may go and in what order, or why nowhere.

A refusal bears the code of the rule that removed the last candidate: each candidate has got as far
as its first reason, and the one that got furthest says what stood in the way. So an EU-only team
whose EU backend is down hears `no_backend` (waiting helps), and one that has no EU backend at all
hears `residency_violation` (waiting does not).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from policies.ask import Ask
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.cost import charge_for_picos
from policies.decision import Deny
from policies.filters import Verdict
from policies.panel import Panel
from policies.rank import rank
from policies.refusal import refusal


class Plan(msgspec.Struct, frozen=True):
    """The candidates to try, best first, at most `max_attempts`; and a verdict for every one."""

    attempts: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...]


Routed = Plan | Deny

NOWHERE: Final[Mapping[tuple[str, str], Live]] = {}  # nothing is known of any candidate


def route(
    policy: EffectivePolicy,
    ask: Ask,
    candidates: Sequence[Candidate],
    live: Mapping[tuple[str, str], Live],
    gateway_jurisdictions: frozenset[str],
    draw: int,
) -> Routed:
    """Decide one request. `draw` is a uniform random number of 32 bits."""
    return decide(Panel(policy, candidates), ask, live, gateway_jurisdictions, draw)


def decide(
    panel: Panel,
    ask: Ask,
    live: Mapping[tuple[str, str], Live],
    gateway_jurisdictions: frozenset[str],
    draw: int,
) -> Routed:
    """As `route`, for whoever asks often.

    Every attempt of the plan has passed every rule, so that a failover can break none (L8).
    """
    policy, candidates = panel.policy, panel.candidates
    case, verdicts, eligible = panel.judge(ask, live, gateway_jurisdictions)
    if not eligible:
        return refusal(case, candidates, verdicts, draw, live)
    ranked = rank(policy, ask, eligible, live, draw)
    return Plan(tuple(ranked[: policy.max_attempts]), verdicts)


def cheapest(
    panel: Panel,
    ask: Ask,
    verdicts: Sequence[Verdict],
    live: Mapping[tuple[str, str], Live],
    draw: int,
    output: int,
) -> tuple[Candidate, ...]:
    """Of those who are eligible by these verdicts, on the panel's candidates, whoever charges least
    for the input bound and `output` tokens a choice: best first, at most `max_attempts`.
    """
    charges = [
        (charge_for_picos(candidate, ask, output) or 0, candidate)
        for candidate, verdict in zip(panel.candidates, verdicts, strict=True)
        if verdict.eligible
    ]
    least = min(picos for picos, _ in charges)
    those = [candidate for picos, candidate in charges if picos == least]
    return tuple(rank(panel.policy, ask, those, live, draw)[: panel.policy.max_attempts])
