"""Where a policy or a price makes a request's way depend on more than its model: on what it is
like, or on an experiment.
"""

from collections.abc import Callable

from msgspec.structs import replace

from gateway.dataplane.count import size_of, usual_estimate
from gateway.dataplane.flow import Flow
from gateway.dataplane.reading import Reading
from gateway.dataplane.snapshot import Branches, Route
from policies.ask import Ask
from policies.compile import EffectivePolicy
from policies.decision import Deny
from policies.experiment import Experiment

# (flow, what was read, with another model; the policy that keeps it; the model asked for)
Replan = Callable[[Flow, Reading, EffectivePolicy, str], Deny | None]


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
