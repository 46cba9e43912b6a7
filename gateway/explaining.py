"""`policies explain`: the decision a request would meet, from the same snapshot that workers use.

It stands beside wiring because it joins two planes that do not know each other. Candidates are
judged by what the workers see live; where that cannot be had, as if nothing had been measured, and
the answer says so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from sqlalchemy import Engine

from gateway import clock, live_facts
from gateway.admin.fields import instant
from gateway.admin.policies import Explain
from gateway.admin.problems import invalid
from gateway.dataplane.branching import payer_of, shadow_route, sized
from gateway.dataplane.service_tiers import asked_for
from gateway.dataplane.snapshot import Principal, Route, Snapshot, bound_by
from gateway.live_facts import LiveFacts
from gateway.stores.redis.channel import Channels
from gateway.stores.sql.configuration import load
from policies.ask import Ask
from policies.compile import EffectivePolicy, required
from policies.decision import Deny
from policies.explain import explain, explain_shadow, named

_TRIAL: Final = (
    "half open: one trial at a time; a request that comes during another's trial goes to the next"
)


class _World(msgspec.Struct, frozen=True):
    """What a decision is made of beside the request."""

    snapshot: Snapshot
    jurisdictions: frozenset[str]  # that the gateway itself stands in
    facts: LiveFacts


def explainer(
    engine: Engine, gateway_jurisdictions: frozenset[str], store: Channels | None = None
) -> Callable[[Explain], Awaitable[dict[str, Any]]]:
    """What `AdminDeps.explain` takes. `store` is where workers tell what they see."""

    async def answer(asked: Explain) -> dict[str, Any]:
        seen = await live_facts.read(store)
        return await asyncio.to_thread(_answer, engine, gateway_jurisdictions, seen, asked)

    return answer


def _answer(
    engine: Engine, jurisdictions: frozenset[str], seen: LiveFacts, asked: Explain
) -> dict[str, Any]:
    config = load(engine)
    snapshot = Snapshot(config, lambda _backend: None)
    public_id = next((each.public_id for each in config.secrets if each.key_id == asked.key_id), "")
    known = snapshot.principal(public_id)
    if known is None:
        raise invalid("key_id", f"there is no live key {asked.key_id!r}")
    principal: Principal = known[0]
    world = _World(snapshot, jurisdictions, seen)
    told = _explained(world, principal, asked, None)
    names = {backend.id: backend.name for backend in config.backends}
    shadow = _shadowed(world, principal, asked)
    none_because = shadow if isinstance(shadow, str) else None
    if isinstance(shadow, dict) and shadow["model"] == told.get("model"):
        none_because = f"{shadow['model']} serves the request itself"
    if none_because is not None or not isinstance(shadow, dict):
        told |= {"shadow": None, "no_shadow_because": none_because}
    else:
        told |= {"shadow": named(shadow, names), "no_shadow_because": None}
    told = named(told, names)
    return _with_breakers(told, seen) | {"live": seen.plain()}


def _with_breakers(told: dict[str, Any], seen: LiveFacts) -> dict[str, Any]:
    """The same with the state of each candidate's breaker; None: nobody has tried it, or it cannot
    be known. `trial` says of one that is eligible and half open what that is worth.
    """
    for each in told["candidates"]:
        breaker = seen.breakers.get((each["backend_id"], each["upstream_model"]))
        each["breaker"] = breaker
        each["trial"] = _TRIAL if breaker == "half_open" and each["eligible"] else None
    for other in ("when_exhausted", "shadow"):
        if told.get(other) is not None:
            _with_breakers(told[other], seen)
    return told


def _explained(
    world: _World,
    principal: Principal,
    asked: Explain,
    bound: EffectivePolicy | None,
    tried: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """`when_exhausted` is the same of the model that would be tried if no budget covered this one;
    `bound` is the policy of the one that was asked for.
    """
    route = _route(world.snapshot, principal, asked, asked.model)
    if isinstance(route, Deny):
        return _nowhere(route)
    route, conditional = _branch(route, asked)
    route = sized(route, _ask(asked, route))
    if bound is not None:
        route = bound_by(route, bound)
    elif (varied := _varied(world, principal, asked, route)) is not None:
        return varied
    told = _judged(world, route, _ask(asked, route)) | {
        "model": asked.model,
        "conditional": conditional,
    }
    cheaper, tried = route.policy.degrade_to, tried | {asked.model}
    if cheaper is not None and cheaper not in tried:
        instead = msgspec.structs.replace(asked, model=cheaper)
        told["when_exhausted"] = _explained(world, principal, instead, route.policy, tried)
    return told


def _route(snapshot: Snapshot, principal: Principal, asked: Explain, model: str) -> Route | Deny:
    """At the prices of the tier that is asked for."""
    route = snapshot.route(principal, model, clock.now_us())
    if isinstance(route, Deny) or asked.service_tier is None:
        return route
    tier = {"service_tier": msgspec.Raw(msgspec.json.encode(asked.service_tier))}
    return asked_for(route, tier, _operation(route))


def _judged(world: _World, route: Route, ask: Ask) -> dict[str, Any]:
    return explain(
        route.policy, ask, route.panel.candidates, world.facts.live, world.jurisdictions, 0
    )


def _varied(
    world: _World, principal: Principal, asked: Explain, route: Route
) -> dict[str, Any] | None:
    """The decision on the model that an experiment gives this request; None where it is served as
    asked.
    """
    experiment = route.policy.experiment
    if experiment is None or not experiment.split:
        return None
    variant = experiment.variant(principal.key.id, asked.tags)
    if variant == asked.model:
        return None
    instead = msgspec.structs.replace(asked, model=variant)
    tried = frozenset({asked.model})
    told = _explained(world, principal, instead, route.policy, tried)
    given = {"name": experiment.name, "instead_of": asked.model}
    return told | {"experiment": given} if told["decision"] == "serve" else None


def _shadowed(world: _World, principal: Principal, asked: Explain) -> dict[str, Any] | str | None:
    """The decision on the shadow of this request; in words, why it has none of those that there
    are; None where there are none.
    """
    snapshot = world.snapshot
    now_us = clock.now_us()
    route = snapshot.route(principal, asked.model, now_us)
    if isinstance(route, Deny):
        return None
    bound = _branch(route, asked)[0].policy
    trial = bound.experiment
    shadow = None if trial is None else trial.shadowed(principal.key.id, asked.tags)
    if trial is None or trial.shadow is None:
        return None
    if shadow is None:
        return f"it is not among the {trial.shadow.percent} % of experiment {trial.name}"
    told = {"experiment": trial.name} | explain_shadow(shadow)
    payer = payer_of(snapshot, principal, shadow, now_us)
    if isinstance(payer, Deny):
        return told | _nowhere(payer)
    paying = _route(snapshot, payer, asked, shadow.model)
    asking = snapshot.route(principal, shadow.model, now_us)
    if isinstance(paying, Deny):
        return told | _nowhere(paying)
    if isinstance(asking, Deny):
        return told | _nowhere(asking)
    instead = msgspec.structs.replace(asked, model=shadow.model)
    bound = required(bound, _branch(asking, instead)[0].policy)
    paying = _branch(paying, instead)[0]
    route = shadow_route(sized(paying, _ask(instead, paying)), bound)
    return told | _judged(world, route, _ask(instead, route))


def _nowhere(deny: Deny) -> dict[str, Any]:
    refusal = {"code": deny.code.value, "message": deny.message, "param": deny.param}
    return {"decision": "refuse", "refusal": refusal, "attempts": [], "candidates": []}


def _branch(route: Route, asked: Explain) -> tuple[Route, list[dict[str, Any]]]:
    """The route of this request, and which documents that ask more than a model spoke of it."""
    if route.branches is None:
        return route, []
    at_us = clock.now_us() if asked.at is None else instant(asked.at, "at")
    occasion = route.branches.occasion(
        asked.tags, at_us, stream=asked.stream, input_tokens=asked.input_tokens
    )
    occasions = route.branches.occasions
    told = [
        {"policy": name, "applies": applies}
        for name, applies in occasions.told(occasions.pattern(occasion))
    ]
    return route.branches.route(route, occasion), told


def _operation(route: Route) -> str:
    return "chat" if "chat" in route.model.capabilities else route.model.capabilities[0]


def _ask(asked: Explain, route: Route) -> Ask:
    """A plain chat, or an embedding where the model offers nothing else."""
    operation = _operation(route)
    wanted = asked.max_tokens or route.policy.default_output
    if route.model.max_output_tokens is not None:
        wanted = min(wanted, route.model.max_output_tokens)
    return Ask(
        model=asked.model,
        operation=operation,
        capabilities=frozenset({operation}),
        stream=asked.stream,
        input_bound=asked.input_tokens,
        input_estimate=asked.input_tokens,
        output_wanted=0 if operation == "embeddings" else wanted,
        choices=1,
    )
