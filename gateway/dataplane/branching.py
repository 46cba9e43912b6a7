"""Where a policy or a price makes a request's way depend on more than its model: on what it is
like, or on an experiment, which may send it a second time.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from gateway.dataplane.count import size_of, usual_estimate
from gateway.dataplane.flow import Flow
from gateway.dataplane.reading import Reading
from gateway.dataplane.snapshot import Branches, Principal, Route, Snapshot
from policies.ask import Ask
from policies.compile import EffectivePolicy, for_shadow
from policies.decision import Deny, DenyCode
from policies.experiment import Experiment
from policies.panel import Panel
from policies.shadow import Shadow


def _unpaid(why: str) -> Deny:
    return Deny(DenyCode.MODEL_NOT_ALLOWED, f"the key that is to pay for this shadow {why}")


GONE: Final = _unpaid("is not there, or not any more")
ITSELF: Final = _unpaid("makes this request itself, and its own requests have no shadow")
BLOCKED: Final = _unpaid("is blocked")
BEYOND: Final = _unpaid("is not below the scope of its policy")

# (flow, what was read, with another model; the policy that keeps it; the model asked for)
Replan = Callable[[Flow, Reading, EffectivePolicy, str], Deny | None]


def policy_of(flow: Flow) -> EffectivePolicy:
    if flow.route is None:
        raise RuntimeError("a policy before the route")
    return flow.route.policy


def branch(trunk: Route, branches: Branches, flow: Flow, reading: Reading) -> Route:
    """The route under the policy of this very request."""
    plain = size_of(reading, flow.body, trunk.model, estimate=usual_estimate(len(flow.body)))
    flow.usual_tokens = plain.estimate
    occasion = branches.occasion(
        flow.tags,
        flow.arrival.arrived_us,
        stream=bool(reading.envelope.stream),
        input_tokens=plain.estimate,
    )
    return branches.route(trunk, occasion)


def sized(route: Route, ask: Ask) -> Route:
    """The route at the prices of a prompt of this size."""
    if route.sizes is None:
        return route
    panel = route.sizes.panel(route.panel, ask.input_bound, ask.input_estimate)
    return route if panel is route.panel else replace(route, panel=panel)


def vary(flow: Flow, reading: Reading, experiment: Experiment, replan: Replan) -> bool:
    """Plans the request for the model that an experiment gives it, kept to where the one asked
    for may go. False: it is that one, or the other cannot serve it, and nothing is changed.
    """
    route, principal = flow.route, flow.principal
    if route is None or principal is None:
        raise RuntimeError("an experiment before the route")
    if not experiment.split:
        return False
    asked, flow.experiment = reading.envelope, experiment.name
    variant = experiment.variant(principal.key.id, flow.tags)
    if variant == asked.model:
        return False
    known = (flow.envelope, flow.route, flow.ask, flow.usual_tokens)
    instead = replace(reading, envelope=replace(asked, model=variant))
    if replan(flow, instead, route.policy, asked.model) is None:
        return True
    (flow.envelope, flow.route, flow.ask, flow.usual_tokens) = known
    flow.plan, flow.verdicts, flow.quote, flow.experiment = None, (), None, ""
    return False


def payer_of(snapshot: Snapshot, asker: Principal, shadow: Shadow, now_us: int) -> Principal | Deny:
    """Who pays for the shadow of a request of this asker, never the asker; Deny: nobody may."""
    payer = snapshot.holder(shadow.payer, now_us)
    if payer is None:
        return GONE
    if payer.key.id == asker.key.id:
        return ITSELF
    if payer.tenant.id != asker.tenant.id:
        return BEYOND
    if snapshot.blocks.deny(payer.key.id, now_us) is not None:
        return BLOCKED
    return payer if shadow.may_pay(payer.tenant.id, payer.team_path) else BEYOND


def shadow_route(paying: Route, bound: EffectivePolicy) -> Route:
    """The route of whoever pays, kept to all that is required of the request it is a shadow of."""
    policy = for_shadow(paying.policy, bound)
    panel = Panel(policy, paying.panel.candidates)
    return replace(paying, policy=policy, panel=panel, bound=bound, shadow=True)
