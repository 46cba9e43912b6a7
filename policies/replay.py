"""What another version of a policy would have made of requests that were decided before.

Each decision is made again from its facts: the candidates as they were configured, what was seen
of them at that moment, the same draw. Only the policies differ. What a client would have done after
a different answer nobody knows, so nothing is claimed of it.
"""

from collections.abc import Callable
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from policies import facts
from policies.candidates import Candidate
from policies.compile import Scoped, for_shadow, within
from policies.decision import Deny
from policies.document import PolicyDocument
from policies.facts import DocumentRef, Record, Standing
from policies.match import Occasion, minute_of_week
from policies.occasions import Occasions
from policies.panel import Panel
from policies.route import decide

_KEY_DEPTH: Final = 1_000  # as the snapshot counts: below every team
_MOST_KEPT: Final = 4_096  # compiled for what decisions have in common: a bound, there are a few

Documents = Callable[[DocumentRef], PolicyDocument]


class Draft(msgspec.Struct, frozen=True):
    """The version that is tried, in place of whichever was in force."""

    policy_id: str
    policy_version: int
    name: str
    scope_kind: str  # tenant | team | key
    scope_id: str
    document: PolicyDocument

    def depth_for(self, record: Record) -> int | None:
        """Where it stands on the way to the key; None: it is not on it."""
        match self.scope_kind:
            case "tenant":
                return 0 if self.scope_id == record.tenant_id else None
            case "team":
                path = record.team_path
                return path.index(self.scope_id) + 1 if self.scope_id in path else None
            case _:
                return _KEY_DEPTH if self.scope_id == record.key_id else None


class Outcome(msgspec.Struct, frozen=True):
    """Where a request would be tried, best first, or the code of its refusal."""

    order: tuple[int, ...]  # candidates of the standing
    refusal: str = ""


class Again(msgspec.Struct, frozen=True):
    """One decision, then and under the draft."""

    record: Record
    standing: Standing
    before: Outcome
    after: Outcome

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def first(self, outcome: Outcome) -> Candidate | None:
        return self.standing.candidates[outcome.order[0]] if outcome.order else None


class Replayer:
    """Of one draft. `documents` answers the versions that were in force; they never change."""

    def __init__(self, draft: Draft, documents: Documents) -> None:
        self._draft = draft
        self._documents = documents
        self._occasions: dict[tuple[bytes, int], Occasions] = {}
        self._panels: dict[tuple[bytes, int, int], Panel] = {}
        self._zones: dict[str, ZoneInfo] = {}

    def again(self, record: Record, standing: Standing) -> Again | None:
        """None: the draft does not stand on the way to that key."""
        depth = self._draft.depth_for(record)
        if depth is None:
            return None
        decided = record.facts
        routed = decide(
            self._panel(record, standing, depth),
            decided.ask,
            facts.live_of(standing, decided),
            standing.gateway_jurisdictions,
            decided.draw,
        )
        if isinstance(routed, Deny):
            after = Outcome((), routed.code.value)
        else:
            places = standing.candidates
            after = Outcome(tuple(places.index(candidate) for candidate in routed.attempts))
        # A plan that no budget paid was a plan: what is compared is where policies would let it go.
        before = Outcome(decided.order, "" if decided.order else decided.refusal)
        return Again(record, standing, before, after)

    def _panel(self, record: Record, standing: Standing, depth: int) -> Panel:
        digest = record.facts.standing
        occasions = self._occasions.get((digest, depth))
        if occasions is None:
            occasions = Occasions(self._scoped(standing, depth), standing.model)
            self._keep(self._occasions, (digest, depth), occasions)
        pattern = occasions.pattern(self._occasion(record, standing)) if occasions.differ else 0
        panel = self._panels.get((digest, depth, pattern))
        if panel is None:
            policy = occasions.policy(pattern)
            if standing.bound is not None:
                kept = for_shadow if standing.shadow else within
                policy = kept(policy, standing.bound)
            panel = Panel(policy, standing.candidates)
            self._keep(self._panels, (digest, depth, pattern), panel)
        return panel

    def _scoped(self, standing: Standing, depth: int) -> list[Scoped]:
        draft = self._draft
        others = [each for each in standing.documents if each.policy_id != draft.policy_id]
        scoped = [(o.scope_kind, o.depth, o.name, self._documents(o)) for o in others]
        return [*scoped, (draft.scope_kind, depth, draft.name, draft.document)]

    def _occasion(self, record: Record, standing: Standing) -> Occasion:
        decided = record.facts
        zone = self._zones.get(standing.timezone)
        if zone is None:
            zone = self._zones[standing.timezone] = ZoneInfo(standing.timezone)
        return Occasion(
            decided.ask.stream,
            decided.usual_tokens or decided.ask.input_estimate,
            record.tags,
            minute_of_week(decided.decided_at_us, zone),
        )

    @staticmethod
    def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
        if len(kept) >= _MOST_KEPT:
            kept.clear()
        kept[key] = value
