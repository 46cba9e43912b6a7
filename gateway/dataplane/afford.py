"""What is tried where no budget covers a request as it was planned: the cheapest of its backends
alone, and then the model that its policy names instead. Nothing is tried after any other refusal.

A hold is the worst case of the whole plan, so that no failover can outgrow it. Where that is more
than is left, a plan without the dearer backends may still fit.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from gateway.dataplane.flow import Flow
from gateway.dataplane.quote import quote
from gateway.dataplane.reading import Reading
from gateway.stores.redis.holds import Replay
from policies import facts
from policies.candidates import Live
from policies.compile import EffectivePolicy
from policies.decision import Deny, DenyCode
from policies.route import Plan, cheapest

Admitted = Deny | Replay | None


class Means(NamedTuple):
    """Of the walk of a request, the steps that are taken again."""

    admit: Callable[[Flow], Awaitable[Admitted]]
    replan: Callable[[Flow, Reading, EffectivePolicy, str], Deny | None]
    live: Callable[[], Mapping[tuple[str, str], Live]]
    draw: Callable[[int], int]


async def afford(flow: Flow, reading: Reading, refused: Deny | Replay, means: Means) -> Admitted:
    """As `admit`, which `refused` is the answer of."""
    if not _over_budget(refused):
        return refused
    last = await _cheapest(flow, refused, means)
    if not _over_budget(last):
        return last
    return await _cheaper(flow, reading, last, means)


def _over_budget(answer: Admitted) -> bool:
    return isinstance(answer, Deny) and answer.code is DenyCode.INSUFFICIENT_QUOTA


async def _cheapest(flow: Flow, refused: Admitted, means: Means) -> Admitted:
    """With those alone, of all who may serve it, that charge least."""
    known = (flow.plan, flow.quote, flow.decision)
    if not _keep_cheapest(flow, means):
        return refused
    flow.transcript = None
    answer = await means.admit(flow)
    if isinstance(answer, Deny):
        (flow.plan, flow.quote, flow.decision) = known
    return answer


def _keep_cheapest(flow: Flow, means: Means) -> bool:
    """False: that would save nothing, and nothing is changed."""
    route, ask, plan, terms, principal = flow.route, flow.ask, flow.plan, flow.quote, flow.principal
    if route is None or ask is None or plan is None or terms is None or principal is None:
        raise RuntimeError("a cheaper plan before a plan")
    panel, draw = route.panel, means.draw(32)
    attempts = cheapest(panel, ask, plan.verdicts, means.live(), draw, terms.least)
    narrowed = Plan(attempts, plan.verdicts)
    in_slices = terms.first < terms.wanted
    less = quote(ask, narrowed, route, principal.tenant.currency, in_slices=in_slices)
    least = terms.least * terms.choices
    if less.worst.total(least) >= terms.worst.total(least):
        return False
    flow.plan, flow.quote = narrowed, less
    places = tuple(panel.candidates.index(candidate) for candidate in attempts)
    flow.decision = facts.afforded(flow.decision, places)
    return True


async def _cheaper(flow: Flow, reading: Reading, refused: Admitted, means: Means) -> Admitted:
    """The model that the policy names instead, with its own policy, route and price, but nowhere
    that the model asked for may not go; then the one that its policy names.
    """
    asked, tried, last = reading.envelope, [reading.envelope.model], refused
    known = (flow.envelope, flow.route, flow.ask, flow.plan, flow.verdicts, flow.quote)
    decision = flow.decision
    while _over_budget(last):
        bound = flow.route.policy if flow.route is not None else None
        if bound is None or bound.degrade_to is None or bound.degrade_to in tried:
            break
        tried.append(bound.degrade_to)
        flow.transcript = None
        instead = replace(reading, envelope=replace(asked, model=bound.degrade_to))
        answer: Admitted = means.replan(flow, instead, bound, asked.model)
        if answer is None:
            answer = await means.admit(flow)
            if _over_budget(answer):
                answer = await _cheapest(flow, answer, means)
        if not isinstance(answer, Deny):
            flow.degraded_from = asked.model
            return answer
        last = answer
    (flow.envelope, flow.route, flow.ask, flow.plan, flow.verdicts, flow.quote) = known
    flow.decision = decision
    if last is refused or not isinstance(refused, Deny) or not isinstance(last, Deny):
        return refused
    return replace(refused, message=f"{refused.message}; {tried[-1]} instead: {last.message}")
