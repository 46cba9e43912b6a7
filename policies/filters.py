"""Who may serve a request: the hard rules in order, and a verdict for every candidate.

A rule answers True when it *excludes*. The order is the order of a refusal's importance: what the
request is comes before where it may go, before what it costs, before who happens to be up.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from policies import residency
from policies.ask import Ask
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.cost import worst_charge_picos


class Reason(StrEnum):
    """Why a candidate may not serve. Few and stable: they become metric labels."""

    CAPABILITY = "capability"
    CONTEXT = "context"
    WINDOW = "window"  # smaller than the policy wants a context window to be
    RESIDENCY = "residency"
    DATA_CLASS = "data_class"
    UNPRICED = "unpriced"
    PRICE_CEILING = "price_ceiling"  # per million tokens
    REQUEST_CEILING = "request_ceiling"  # per request
    PLACEMENT = "placement"
    UNAVAILABLE = "unavailable"
    RESTING = "resting"  # it said when to come back, and it is not then yet
    SLO = "slo"

    __hash__ = str.__hash__  # as equality; the library's own is a call into Python


class Verdict(msgspec.Struct, frozen=True):
    """What the rules say of one candidate: every reason against it, in the order of the rules."""

    backend_id: str
    upstream_model: str
    eligible: bool
    reasons: tuple[Reason, ...] = ()


# Where a candidate's percentiles stand against the SLO; a lower tier is served first.
MEETS: Final = 0
NO_DATA: Final = 1
BREACHES: Final = 2

UNSEEN: Final = Live()  # what we know of a candidate that nobody has tried


class Case(msgspec.Struct, frozen=True):
    """One request before the rules, with what is the same for every candidate worked out once."""

    policy: EffectivePolicy
    ask: Ask
    needed: frozenset[str]
    gateway_jurisdictions: frozenset[str]
    gateway_permitted: bool
    rules: "Rules"  # those that can exclude anybody under this policy, in order


Rule = Callable[[Case, Candidate, Live], bool]
Rules = tuple[tuple[Reason, Rule], ...]


def case_of(policy: EffectivePolicy, ask: Ask, gateway_jurisdictions: frozenset[str]) -> Case:
    """The case of one request."""
    permitted = policy.residency
    return Case(
        policy,
        ask,
        ask.capabilities | policy.capabilities if policy.capabilities else ask.capabilities,
        gateway_jurisdictions,
        residency.permits(permitted, gateway_jurisdictions, gateway_jurisdictions),
        _rules_of(
            permitted is None,
            policy.max_input_picos_per_token is None and policy.max_output_picos_per_token is None,
            policy.max_per_request_picos is None,
            policy.placements is None,
            not policy.objectives
            or (policy.on_breach == "prefer_faster" and policy.on_no_data != "refuse"),
            policy.least_context is None,
            not policy.data_classes,
        ),
    )


def _lacks_capability(case: Case, candidate: Candidate, _live: Live) -> bool:
    return not case.needed <= candidate.capabilities


def _exceeds_context(case: Case, candidate: Candidate, _live: Live) -> bool:
    # By the estimate with a quarter to spare: the bound is often four times the truth, and the
    # backend itself counts exactly and says so. This only spares a hopeless journey.
    window = candidate.context_window
    return window is not None and case.ask.input_estimate * 4 > window * case.ask.prompts * 5


def _is_too_small(case: Case, candidate: Candidate, _live: Live) -> bool:
    least, window = case.policy.least_context, candidate.context_window
    return least is not None and (window is None or window < least)


def _leaves_jurisdiction(case: Case, candidate: Candidate, _live: Live) -> bool:
    permitted, jurisdictions = case.policy.residency, candidate.jurisdictions
    return permitted is not None and not (
        case.gateway_permitted and jurisdictions and jurisdictions <= permitted
    )


def _is_not_cleared(case: Case, candidate: Candidate, _live: Live) -> bool:
    return not case.policy.data_classes <= candidate.data_classes


def _is_unpriced(case: Case, candidate: Candidate, _live: Live) -> bool:
    if candidate.charge_input_picos is None:
        return True
    return candidate.charge_output_picos is None and case.ask.output_wanted > 0


def _costs_too_much_a_token(case: Case, candidate: Candidate, _live: Live) -> bool:
    policy = case.policy
    most_in, most_out = policy.max_input_picos_per_token, policy.max_output_picos_per_token
    if most_in is not None and (candidate.charge_input_picos or 0) > most_in:
        return True
    return (
        most_out is not None
        and case.ask.output_wanted > 0
        and (candidate.charge_output_picos or 0) > most_out
    )


def _costs_too_much_a_request(case: Case, candidate: Candidate, _live: Live) -> bool:
    most = case.policy.max_per_request_picos
    return most is not None and (worst_charge_picos(candidate, case.ask) or 0) > most


def _is_placed_elsewhere(case: Case, candidate: Candidate, _live: Live) -> bool:
    placements = case.policy.placements
    return placements is not None and candidate.placement not in placements


def _is_unavailable(_case: Case, _candidate: Candidate, live: Live) -> bool:
    return not live.available


def _rests(_case: Case, _candidate: Candidate, live: Live) -> bool:
    return live.rest_ms > 0


def _breaches_slo(case: Case, _candidate: Candidate, live: Live) -> bool:
    # Without data nobody breaches unless a policy says so: a backend that was refused for a minute
    # has an empty window, is tried again, and so can show that it has recovered. Where load is
    # shed, one request at a time shows it sooner.
    policy = case.policy
    tier = tier_of(policy, live)
    if tier == BREACHES:
        shed = policy.on_breach == "shed" and live.in_flight > 0
        return shed or policy.on_breach == "refuse"
    return tier == NO_DATA and policy.on_no_data == "refuse"


RULES: Final[Rules] = (
    (Reason.CAPABILITY, _lacks_capability),
    (Reason.CONTEXT, _exceeds_context),
    (Reason.WINDOW, _is_too_small),
    (Reason.RESIDENCY, _leaves_jurisdiction),
    (Reason.DATA_CLASS, _is_not_cleared),
    (Reason.UNPRICED, _is_unpriced),
    (Reason.PRICE_CEILING, _costs_too_much_a_token),
    (Reason.REQUEST_CEILING, _costs_too_much_a_request),
    (Reason.PLACEMENT, _is_placed_elsewhere),
    (Reason.UNAVAILABLE, _is_unavailable),
    (Reason.RESTING, _rests),
    (Reason.SLO, _breaches_slo),
)


@functools.cache
def _rules_of(
    any_residency: bool,
    any_price: bool,
    any_charge: bool,
    any_placement: bool,
    any_speed: bool,
    any_window: bool,
    any_data: bool,
) -> Rules:
    """The rules without those that the policy gives nothing to do: most policies are short."""
    idle = {
        Reason.RESIDENCY: any_residency,
        Reason.PRICE_CEILING: any_price,
        Reason.REQUEST_CEILING: any_charge,
        Reason.PLACEMENT: any_placement,
        Reason.SLO: any_speed,
        Reason.WINDOW: any_window,
        Reason.DATA_CLASS: any_data,
    }
    return tuple((reason, rule) for reason, rule in RULES if not idle.get(reason, False))


def tier_of(policy: EffectivePolicy, live: Live) -> int:
    """MEETS, NO_DATA or BREACHES. One breached objective is a breach, whatever the others say."""
    tier = MEETS
    for objective in policy.objectives:
        measured = objective.measured(live)
        if measured is None:
            tier = NO_DATA
        elif measured > objective.most_us:
            return BREACHES
    return tier


def judge(
    case: Case,
    candidates: Sequence[Candidate],
    live: Mapping[tuple[str, str], Live],
) -> tuple[Verdict, ...]:
    """A verdict for every candidate, in the order given."""
    return tuple(
        [
            verdict_of(case, c, live.get((c.backend_id, c.upstream_model), UNSEEN))
            for c in candidates
        ]
    )


def verdict_of(case: Case, candidate: Candidate, seen: Live) -> Verdict:
    """The verdict on one candidate, by every rule."""
    reasons = tuple([reason for reason, rule in case.rules if rule(case, candidate, seen)])
    return Verdict(candidate.backend_id, candidate.upstream_model, not reasons, reasons)
