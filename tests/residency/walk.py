"""The walk of a request by the policies library alone: compile, experiment, plan, degrade, retry,
hedge, shadow; what the network does is rolled. Answers where bytes of it went.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy, Scoped, for_shadow, required, within
from policies.decision import Deny
from policies.document import parse
from policies.failover import Attempts, Outcome, RetryBudget
from policies.match import Occasion
from policies.occasions import Occasions
from policies.panel import Panel
from policies.route import Plan, decide
from tests.policy_builders import a_candidate, an_ask
from tests.residency.towns import LABS, SCOPES, Ask, Site, Town

Sent = tuple[str, Site]  # the model that served, and where
Find = Callable[..., Plan | Deny]
Keep = Callable[[EffectivePolicy, EffectivePolicy], EffectivePolicy]

_KINDS = {"tenant": "tenant", "team": "team", "squad": "team", "key": "key", "lab": "key"}


class Parts(msgspec.Struct, frozen=True):
    """The steps that could be wrong; tests plant wrong ones."""

    decide: Find = decide
    within: Keep = within
    for_shadow: Keep = for_shadow


class Generous(RetryBudget):
    """Never spent: here retries are what is tried."""

    def take(self, now_us: int) -> bool:
        return True


def scoped_documents(town: Town, path: Sequence[str] = SCOPES) -> list[Scoped]:
    """Those above a key, whose scopes these are."""
    return [
        (
            _KINDS[each["scope"]],
            path.index(each["scope"]),
            each["name"],
            parse(each | {"scope": {_KINDS[each["scope"]]: each["scope"]}}),
        )
        for each in town.documents
        if each["scope"] in path
    ]


class Walk:
    """One request's."""

    def __init__(self, town: Town, ask: Ask, dice: Random, parts: Parts) -> None:
        self.sent: list[Sent] = []
        self.refusal: str | None = None
        self.hedges = self.retries = self.shadows = 0
        self._town, self._ask, self._dice, self._parts = town, ask, dice, parts
        self._documents = scoped_documents(town)
        self._sites = {site.id: site for site in town.sites}

    def go(self) -> None:
        asked = self._policy(self._ask.model)
        self._serve(asked)
        if self.sent:
            self._shadow(asked)

    def _shadow(self, asked: EffectivePolicy) -> None:
        trial, mirror = asked.experiment, self._town.mirror
        shadow = None if trial is None else trial.shadowed("key", self._ask.tags)
        if shadow is None or not shadow.may_pay("tenant", LABS[1:2]):
            return
        paying = self._policy(mirror, scoped_documents(self._town, LABS))
        bound = required(asked, self._policy(mirror))
        routed = self._plan(mirror, self._parts.for_shadow(paying, bound))
        if not isinstance(routed, Deny):
            self.shadows += 1
            self._try(mirror, routed.attempts[0])

    def _serve(self, asked: EffectivePolicy) -> None:
        model = self._ask.model
        if asked.experiment is not None and asked.experiment.split:
            variant = asked.experiment.variant("key", self._ask.tags)
            if variant != model and variant in self._town.models:
                bound = self._parts.within(self._policy(variant), asked)
                if self._served(variant, bound):
                    return
        self._served(model, asked)

    def _served(self, model: str, policy: EffectivePolicy) -> bool:
        """Whether there is a plan, for this model or one that stands in for it; it is driven."""
        tried = [model]
        while True:
            routed = self._plan(model, policy)
            if isinstance(routed, Deny):
                self.refusal = routed.code.value
                return len(tried) > 1
            if model not in self._town.dear:
                self._drive(model, policy, routed)
                return True
            cheaper = policy.degrade_to
            if cheaper is None or cheaper in tried or cheaper not in self._town.models:
                self.refusal = "insufficient_quota"
                return True
            tried.append(cheaper)
            model, policy = cheaper, self._parts.within(self._policy(cheaper), policy)

    def _policy(self, model: str, above: Sequence[Scoped] | None = None) -> EffectivePolicy:
        occasions = Occasions(self._documents if above is None else above, model)
        occasion = Occasion(self._ask.stream, 10, self._ask.tags, 0)
        return occasions.policy(occasions.pattern(occasion))

    def _plan(self, model: str, policy: EffectivePolicy) -> Plan | Deny:
        candidates = [_candidate(site) for site in self._town.models[model]]
        live = {(each.backend_id, each.upstream_model): self._seen() for each in candidates}
        ask = an_ask(model=model, stream=self._ask.stream)
        gateway = frozenset(self._town.gateway)
        return self._parts.decide(
            Panel(policy, candidates), ask, live, gateway, self._dice.getrandbits(32)
        )

    def _seen(self) -> Live:
        dice = self._dice
        ttft = dice.randint(1, 10**6) if dice.random() < 0.5 else None
        return Live(available=dice.random() < 0.8, in_flight=dice.randint(0, 3), ttft_p95_us=ttft)

    def _drive(self, model: str, policy: EffectivePolicy, plan: Plan) -> None:
        attempts, dice = Attempts(plan.attempts, Generous()), self._dice
        candidate: Candidate | None = attempts.begin(0)
        hedged = policy.hedge_after_ms is None
        while candidate is not None:
            outcomes = [self._try(model, candidate)]
            if not hedged and dice.random() < 0.5:
                beside = attempts.beside(0)
                if beside is not None:
                    hedged, self.hedges = True, self.hedges + 1
                    outcomes.append(self._try(model, beside))
            final = [each for each in outcomes if not each.provably_unprocessed]
            candidate = attempts.after((final or outcomes)[-1], 0, first_byte_sent=False)
            self.retries += candidate is not None

    def _try(self, model: str, candidate: Candidate) -> Outcome:
        outcome = self._dice.choice((Outcome.REFUSED, *Outcome))
        if outcome is not Outcome.NOT_SENT:
            self.sent.append((model, self._sites[candidate.backend_id]))
        return outcome


def _candidate(site: Site) -> Candidate:
    return a_candidate(
        site.id,
        jurisdictions=frozenset(site.jurisdictions),
        placement=site.placement,
        data_classes=frozenset(site.data_classes),
        cost_input_picos=site.cost,
        weight=site.weight,
    )


# ---- steps that are wrong, planted for the fuzz to find ----


def heedless_retries() -> Parts:
    """The rules are asked for the first attempt only; a retry takes whoever is left."""

    def heedless(panel: Panel, *rest: Any) -> Plan | Deny:
        routed = decide(panel, *rest)
        if isinstance(routed, Deny):
            return routed
        others = [each for each in panel.candidates if each not in routed.attempts]
        return Plan((*routed.attempts, *others), routed.verdicts)

    return Parts(decide=heedless)


def forgetful_stand_ins() -> Parts:
    """A model that stands in for another is judged by its own policy alone."""
    return Parts(within=lambda inner, _outer: inner)


def trusting_labels() -> Parts:
    """A backend that says nothing of its laws is taken to be at home."""

    def trusting(panel: Panel, *rest: Any) -> Plan | Deny:
        candidates = tuple(map(_at_home, panel.candidates))
        return decide(Panel(panel.policy, candidates), *rest)

    return Parts(decide=trusting)


def _at_home(candidate: Candidate) -> Candidate:
    if candidate.jurisdictions:
        return candidate
    return msgspec.structs.replace(candidate, jurisdictions=frozenset({"DE"}))


def careless_shadows() -> Parts:
    """Whoever pays decides alone where a request goes a second time."""
    return Parts(for_shadow=lambda paying, _bound: paying)


PLANTS: Sequence[Callable[[], Parts]] = (
    heedless_retries,
    forgetful_stand_ins,
    trusting_labels,
    careless_shadows,
)
