"""`policies explain`: the decision a request would meet, from the same snapshot that workers use.

It stands beside wiring because it joins two planes that do not know each other. What workers see
live (latency, breakers) is not known here: candidates are judged as if nothing had been measured.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from sqlalchemy import Engine

from gateway import clock
from gateway.admin.fields import instant
from gateway.admin.policies import Explain
from gateway.admin.problems import invalid
from gateway.dataplane.branching import sized
from gateway.dataplane.snapshot import Principal, Route, Snapshot, bound_by
from gateway.stores.sql.configuration import load
from policies.ask import Ask
from policies.compile import EffectivePolicy
from policies.decision import Deny
from policies.explain import explain


def explainer(
    engine: Engine, gateway_jurisdictions: frozenset[str]
) -> Callable[[Explain], Awaitable[dict[str, Any]]]:
    """What `AdminDeps.explain` takes."""

    async def answer(asked: Explain) -> dict[str, Any]:
        return await asyncio.to_thread(_answer, engine, gateway_jurisdictions, asked)

    return answer


def _answer(engine: Engine, jurisdictions: frozenset[str], asked: Explain) -> dict[str, Any]:
    config = load(engine)
    snapshot = Snapshot(config, lambda _backend: None)
    public_id = next((each.public_id for each in config.secrets if each.key_id == asked.key_id), "")
    known = snapshot.principal(public_id)
    if known is None:
        raise invalid("key_id", f"there is no live key {asked.key_id!r}")
    principal: Principal = known[0]
    return _explained(snapshot, principal, jurisdictions, asked, None)


def _explained(
    snapshot: Snapshot,
    principal: Principal,
    jurisdictions: frozenset[str],
    asked: Explain,
    bound: EffectivePolicy | None,
    tried: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """`when_exhausted` is the same of the model that would be tried if no budget covered this one;
    `bound` is the policy of the one that was asked for.
    """
    route = snapshot.route(principal, asked.model, clock.now_us())
    if isinstance(route, Deny):
        refusal = {"code": route.code.value, "message": route.message, "param": route.param}
        return {"decision": "refuse", "refusal": refusal, "attempts": [], "candidates": []}
    route, conditional = _branch(route, asked)
    route = sized(route, _ask(asked, route))
    if bound is not None:
        route = bound_by(route, bound)
    elif (varied := _varied(snapshot, principal, jurisdictions, asked, route)) is not None:
        return varied
    told = explain(
        route.policy, _ask(asked, route), route.panel.candidates, {}, jurisdictions, 0
    ) | {"model": asked.model, "conditional": conditional}
    cheaper, tried = route.policy.degrade_to, tried | {asked.model}
    if cheaper is not None and cheaper not in tried:
        instead = msgspec.structs.replace(asked, model=cheaper)
        told["when_exhausted"] = _explained(
            snapshot, principal, jurisdictions, instead, route.policy, tried
        )
    return told


def _varied(
    snapshot: Snapshot,
    principal: Principal,
    jurisdictions: frozenset[str],
    asked: Explain,
    route: Route,
) -> dict[str, Any] | None:
    """The decision on the model that an experiment gives this request; None where it is served as
    asked.
    """
    experiment = route.policy.experiment
    if experiment is None:
        return None
    variant = experiment.variant(principal.key.id, asked.tags)
    if variant == asked.model:
        return None
    instead = msgspec.structs.replace(asked, model=variant)
    tried = frozenset({asked.model})
    told = _explained(snapshot, principal, jurisdictions, instead, route.policy, tried)
    given = {"name": experiment.name, "instead_of": asked.model}
    return told | {"experiment": given} if told["decision"] == "serve" else None


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


def _ask(asked: Explain, route: Route) -> Ask:
    """A plain chat, or an embedding where the model offers nothing else."""
    operation = "chat" if "chat" in route.model.capabilities else route.model.capabilities[0]
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
