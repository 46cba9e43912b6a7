"""In what order eligible candidates are tried: full backends last, then the SLO, then preference.

Weights decide among equals only, by a number drawn by the caller: the same draw, the same order.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from policies.ask import Ask
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.cost import expected_cost_picos
from policies.filters import BREACHES, MEETS, NO_DATA, UNSEEN, tier_of

_NEVER_US: Final = 1 << 62  # slower than anything measured

Score = tuple[int, int]  # lower is better; the second decides where the first is equal
Key = tuple[bool, int, Score]  # saturated, SLO tier, score


def rank(
    policy: EffectivePolicy,
    ask: Ask,
    eligible: Sequence[Candidate],
    live: Mapping[tuple[str, str], Live],
    draw: int,
) -> list[Candidate]:
    """Best first. `draw` is a uniform number of 32 bits."""
    if len(eligible) < 2:
        return list(eligible)
    seen = [live.get((c.backend_id, c.upstream_model), UNSEEN) for c in eligible]
    keys = _keys(policy, ask, eligible, seen)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if len(set(keys)) == len(keys):
        return [eligible[at] for at in order]
    ranked: list[Candidate] = []
    for _key, tied in itertools.groupby(order, keys.__getitem__):
        ranked += _by_weight([eligible[at] for at in tied], policy.weights, draw)
    return ranked


def weight_of(policy: EffectivePolicy, candidate: Candidate) -> int:
    """Its share among equals: what the policy says of its backend, or else its target's."""
    return policy.weights.get(candidate.backend_id, candidate.weight)


def is_saturated(candidate: Candidate, live: Live) -> bool:
    """Whether the backend already has as many of our requests as it may."""
    most = candidate.max_concurrency
    return most is not None and live.in_flight >= most


def _keys(
    policy: EffectivePolicy, ask: Ask, eligible: Sequence[Candidate], seen: Sequence[Live]
) -> list[Key]:
    has_slo, trusting = bool(policy.objectives), policy.on_no_data == "allow"
    keys = []
    for candidate, live, score in zip(
        eligible, seen, _scores(policy, ask, eligible, seen), strict=True
    ):
        full = is_saturated(candidate, live)
        tier = tier_of(policy, live) if has_slo else MEETS
        if tier == NO_DATA and trusting:
            tier = MEETS
        # Too slow already: speed matters now, not the preference.
        keys.append((full, tier, _speed(live) if tier == BREACHES else score))
    return keys


def _speed(live: Live) -> Score:
    return _ttft_us(live, _NEVER_US), live.tpot_p95_us or 0


def _scores(
    policy: EffectivePolicy, ask: Ask, eligible: Sequence[Candidate], seen: Sequence[Live]
) -> list[Score]:
    prefer = policy.prefer
    if prefer == "weighted":
        return [(0, 0)] * len(eligible)
    costs = [expected_cost_picos(candidate, ask) for candidate in eligible]
    if prefer == "cheapest":
        return [(cost, 0) for cost in costs]
    if prefer == "fastest":
        # One never tried comes first: its first answer makes it known.
        return [(_ttft_us(live, 0), cost) for live, cost in zip(seen, costs, strict=True)]
    if prefer == "balanced":
        return _balanced(costs, seen)
    places = [
        prefer.index(candidate.placement) if candidate.placement in prefer else len(prefer)
        for candidate in eligible
    ]
    return list(zip(places, costs, strict=True))


def _balanced(costs: Sequence[int], seen: Sequence[Live]) -> list[Score]:
    """Cost and time to first token, each in thousandths of the best one's, added up. Time grows
    with what is in flight, so that the cheap and quick one is not drowned.
    """
    known = [live.ttft_p95_us or live.ttft_ewma_us for live in seen]
    fallback = min((ttft for ttft in known if ttft), default=1)
    times = [(t or fallback) * (live.in_flight + 1) for t, live in zip(known, seen, strict=True)]
    least_cost, least_time = max(min(costs), 1), min(times)
    return [
        (cost * 1000 // least_cost + time * 1000 // least_time, cost)
        for cost, time in zip(costs, times, strict=True)
    ]


def _ttft_us(live: Live, unknown: int) -> int:
    """The windowed percentile; the moving average while the window is thin."""
    return live.ttft_p95_us or live.ttft_ewma_us or unknown


def _by_weight(tied: list[Candidate], given: Mapping[str, int], draw: int) -> list[Candidate]:
    """Draw without replacement: a weight of 9 against 1 comes first nine times in ten."""
    left = [(given.get(candidate.backend_id, candidate.weight), candidate) for candidate in tied]
    drawn: list[Candidate] = []
    total = sum(weight for weight, _ in left)
    while total > 0 and len(left) > 1:
        at = draw * total >> 32
        sums = itertools.accumulate(weight for weight, _ in left)
        weight, chosen = left.pop(next(index for index, upto in enumerate(sums) if at < upto))
        drawn.append(chosen)
        total -= weight
        draw = draw * 0x9E3779B1 + 0x7F4A7C15 & 0xFFFFFFFF
    return drawn + [candidate for _, candidate in left]
