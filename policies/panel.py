"""The candidates of one policy, with everything about them that no request changes worked out once.

Most rules speak of configuration alone. So a panel asks those once for each kind of request, and of
each request only what it and the moment can change. Whoever fails at that is judged by all rules,
for the reasons: a panel never decides otherwise than `judge` of filters, and a property test holds
the two together.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from policies.ask import Ask
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.facts import Recorder
from policies.filters import UNSEEN, Case, Reason, Rule, Rules, Verdict, case_of, verdict_of
from policies.objectives import unusual

# What a request's size or the moment decides. All other rules look at the policy, the candidate,
# and of the request only at what it needs and whether it wants output.
_OF_THE_MOMENT: Final = frozenset(
    (Reason.CONTEXT, Reason.REQUEST_CEILING, Reason.UNAVAILABLE, Reason.RESTING, Reason.SLO)
)
_MOST_KINDS: Final = 256  # of requests to one panel: a bound, there are a few

_Kind = tuple[frozenset[str], frozenset[str], bool]  # needs, the gateway's place, wants output


class _Standing(msgspec.Struct, frozen=True):
    """What is known before a request of this kind is looked at."""

    needed: frozenset[str]
    gateway_permitted: bool
    rules: Rules
    # Each candidate, its key in `live`, and the rules by which the moment could have something
    # against it.
    places: tuple[tuple[Candidate, tuple[str, str], tuple[Rule, ...]], ...]
    verdicts: tuple[Verdict, ...]  # if it has nothing against any of them,
    eligible: tuple[Candidate, ...]  # and who may be asked then


class Panel:
    """Belongs to one policy and its candidates. Pure, but for what it remembers."""

    __slots__ = ("_standings", "asked", "candidates", "policy", "recorder")

    def __init__(self, policy: EffectivePolicy, candidates: Sequence[Candidate]) -> None:
        self.policy = policy
        self.candidates = tuple(candidates)
        self.asked = unusual(policy.objectives)  # what has to be measured for this policy alone
        self.recorder: Recorder | None = None  # made with the first decision that is kept
        self._standings: dict[_Kind, _Standing] = {}

    def judge(
        self,
        ask: Ask,
        live: Mapping[tuple[str, str], Live],
        gateway_jurisdictions: frozenset[str],
    ) -> tuple[Case, tuple[Verdict, ...], Sequence[Candidate]]:
        """The case of one request, a verdict for every candidate in the order given, and those who
        are eligible.
        """
        kind = (ask.capabilities, gateway_jurisdictions, ask.output_wanted > 0)
        known = self._standings.get(kind) or self._learn(kind, ask)
        needed, permitted, rules = known.needed, known.gateway_permitted, known.rules
        case = Case(self.policy, ask, needed, gateway_jurisdictions, permitted, rules)
        struck: dict[int, Verdict] = {}
        for at, (candidate, place, of_the_moment) in enumerate(known.places):
            seen = live.get(place, UNSEEN)
            for rule in of_the_moment:
                if rule(case, candidate, seen):
                    struck[at] = verdict_of(case, candidate, seen)
                    break
        if not struck:  # as nearly always
            return case, known.verdicts, known.eligible
        verdicts = tuple([struck.get(at, lasting) for at, lasting in enumerate(known.verdicts)])
        return case, verdicts, _eligible(self.candidates, verdicts)

    def _learn(self, kind: _Kind, ask: Ask) -> _Standing:
        case = case_of(self.policy, ask, kind[1])
        lasting = [one for one in case.rules if one[0] not in _OF_THE_MOMENT]
        places, verdicts = [], []
        for candidate in self.candidates:
            place = (candidate.backend_id, candidate.upstream_model)
            reasons = tuple(reason for reason, rule in lasting if rule(case, candidate, UNSEEN))
            verdicts.append(Verdict(*place, not reasons, reasons))
            moment = tuple(rule for reason, rule in case.rules if _may_strike(reason, candidate))
            places.append((candidate, place, moment))
        if len(self._standings) >= _MOST_KINDS:
            self._standings.clear()
        self._standings[kind] = known = _Standing(
            case.needed,
            case.gateway_permitted,
            case.rules,
            tuple(places),
            tuple(verdicts),
            _eligible(self.candidates, verdicts),
        )
        return known


def _eligible(
    candidates: Sequence[Candidate], verdicts: Sequence[Verdict]
) -> tuple[Candidate, ...]:
    return tuple([c for c, verdict in zip(candidates, verdicts, strict=True) if verdict.eligible])


def _may_strike(reason: Reason, candidate: Candidate) -> bool:
    """Whether a request or the moment could bring this up against the candidate."""
    if reason is Reason.CONTEXT:
        return candidate.context_window is not None
    return reason in _OF_THE_MOMENT
