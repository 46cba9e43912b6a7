"""What changes between the decisions of a period and the same under a draft, added up.

Memory does not grow with the number of decisions. Money is the tenant's, in picos: what the tokens
that were used, or were expected where nobody knows, come to at the first candidate of each plan, by
the prices of then; nothing for what was planned and not admitted. Latency is what the windows of
that moment said of that candidate.
"""

from collections import Counter
from typing import Any, Final

import msgspec

from billing.money import format_picos
from policies import latency
from policies.candidates import Candidate, Live
from policies.latency import Counts
from policies.replay import Again, Outcome

_MOST_GROUPS: Final = 2_000
_MOST_MOVES: Final = 200
REST: Final = "(others)"

Used = tuple[int, int]  # input and output tokens of the attempt that won


class _Side(msgspec.Struct):
    """Of one side, then or under the draft."""

    refused: int = 0
    cost_picos: int = 0
    charge_picos: int = 0

    def plain(self) -> dict[str, Any]:
        return {
            "refused": self.refused,
            "cost": format_picos(self.cost_picos),
            "charge": format_picos(self.charge_picos),
        }


class _Group(msgspec.Struct):
    decisions: int = 0
    changed: int = 0
    before: _Side = msgspec.field(default_factory=_Side)
    after: _Side = msgspec.field(default_factory=_Side)

    def plain(self) -> dict[str, Any]:
        return {
            "decisions": self.decisions,
            "changed": self.changed,
            "before": self.before.plain(),
            "after": self.after.plain(),
        }


class _Speed:
    """Times to first token as the windows had them, of one side."""

    def __init__(self) -> None:
        self.counts: Counts = {}
        self.known = 0
        self.unknown = 0
        self.fewest = 0

    def add(self, seen: Live | None) -> None:
        if seen is None or seen.ttft_p95_us is None:
            self.unknown += 1
            return
        bucket = latency.bucket_of(seen.ttft_p95_us)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.fewest = min(self.fewest or seen.samples, seen.samples)
        self.known += 1

    def plain(self) -> dict[str, Any]:
        def ms(p: int) -> int | None:
            found = latency.percentile_of(self.counts, p)
            return None if found is None else -(-found // 1000)

        return {
            "ttft_p95_ms": {"median": ms(50), "p95": ms(95)},
            "known": self.known,
            "unknown": self.unknown,
            "fewest_samples": self.fewest,
        }


class Difference:
    """`add` each decision, then ask for `plain`."""

    def __init__(self) -> None:
        self._all = _Group()
        self._groups: dict[tuple[str, str], _Group] = {}
        self._moves: Counter[tuple[str, str]] = Counter()
        self._places: dict[str, dict[str, list[int]]] = {"region": {}, "jurisdiction": {}}
        self._speed = (_Speed(), _Speed())
        self._estimated = 0
        self._unpaid = 0

    def add(self, again: Again, used: Used | None) -> None:
        """`used`: what the ledger has of it; None: expected tokens stand in."""
        record, ask = again.record, again.record.facts.ask
        tokens = used or (ask.input_estimate, ask.output_wanted * ask.choices)
        if record.facts.refusal and record.facts.order:
            # What no budget or limit let in was never sent: it would not be under the draft either.
            tokens = (0, 0)
            self._unpaid += 1
        else:
            self._estimated += used is None
        key = (record.team_path[-1], ask.model)
        if key not in self._groups and len(self._groups) >= _MOST_GROUPS:
            key = (REST, REST)
        group = self._groups.setdefault(key, _Group())
        for each in (self._all, group):
            each.decisions += 1
            each.changed += again.changed
        for at, outcome in enumerate((again.before, again.after)):
            first = again.first(outcome)
            sides = [(each.before, each.after)[at] for each in (self._all, group)]
            _account(sides, first, tokens)
            self._place(at, first)
            if first is not None:
                self._speed[at].add(again.record.facts.seen[outcome.order[0]])
        if again.changed:
            move = (_told(again, again.before), _told(again, again.after))
            known = move in self._moves or len(self._moves) < _MOST_MOVES
            self._moves[move if known else (REST, REST)] += 1

    def _place(self, at: int, first: Candidate | None) -> None:
        if first is None:
            return
        jurisdictions = ",".join(sorted(first.jurisdictions)) or "unlabelled"
        for kind, name in (("region", first.region), ("jurisdiction", jurisdictions)):
            self._places[kind].setdefault(name, [0, 0])[at] += 1

    def plain(self) -> dict[str, Any]:
        """Plain data for people and machines; money as decimal text."""
        groups = sorted(self._groups.items(), key=lambda one: (-one[1].changed, one[0]))
        return {
            **self._all.plain(),
            "tokens_expected": self._estimated,
            "not_admitted": self._unpaid,
            "latency": {"before": self._speed[0].plain(), "after": self._speed[1].plain()},
            "moves": [
                {"from": was, "to": now, "decisions": count}
                for (was, now), count in self._moves.most_common()
            ],
            **{
                f"{kind}s": [
                    {kind: name, "before": before, "after": after}
                    for name, (before, after) in sorted(counts.items())
                ]
                for kind, counts in self._places.items()
            },
            "groups": [
                {"team_id": team, "model": model, **group.plain()}
                for (team, model), group in groups
            ],
        }


def _account(sides: list[_Side], first: Candidate | None, tokens: Used) -> None:
    for side in sides:
        if first is None:
            side.refused += 1
            continue
        charge = (first.charge_input_picos or 0, first.charge_output_picos or 0)
        cost = (first.cost_input_picos, first.cost_output_picos)
        side.charge_picos += charge[0] * tokens[0] + charge[1] * tokens[1]
        # A cost nobody configured counts as the charge, as it does where routes are ranked.
        for price, instead, count in zip(cost, charge, tokens, strict=True):
            side.cost_picos += (instead if price is None else price) * count


def _told(again: Again, outcome: Outcome) -> str:
    first = again.first(outcome)
    if first is None:
        return f"refused: {outcome.refusal}"
    rest = len(outcome.order) - 1
    return f"{first.backend_id}/{first.upstream_model}" + (f" +{rest}" if rest else "")
