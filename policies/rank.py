"""In what order eligible candidates are tried: the ejected and the full last, then the SLO, then
preference.

Among equals the draw and the weights decide; where weights are equal too, of the two drawn first
the one with less to do (tokens in flight by moving average) goes first. One request in a hundred
tries another one first where speed matters, and one in sixteen one too little known that might be
preferred, or a backend that was slow once would never show that it no longer is. The same draw, the
same order.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from policies.affinity import affine
from policies.ask import Ask
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.cost import expected_cost_picos
from policies.filters import BREACHES, MEETS, NO_DATA, UNSEEN, tier_of
from policies.readers import MAX_ATTEMPTS

EXPLORED: Final = 655  # of 65,536 draws
LEARNT: Final = 4_096  # of as many: to know one that would be preferred and is too little known
QUEUE_FULL: Final = 5  # requests waiting at a backend that says so
CACHE_FULL: Final = 800  # thousandths of its key-value cache

_NEVER_US: Final = 1 << 62  # slower than anything measured
_AS_LONG: Final = 8  # so many in flight are taken to double the time: engines batch
_BY_SPEED: Final = ("fastest", "balanced")

_TAKES: Final = 0
_FULL: Final = 1
_OUT: Final = 2

Score = tuple[int, int]  # lower is better; the second decides where the first is equal
Key = tuple[int, int, Score]  # takes traffic, full or out; SLO tier; score


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
    scores = _scores(policy, ask, eligible, seen)
    keys = _keys(policy, scores, eligible, seen, draw)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if len(set(keys)) < len(keys):
        ranked: list[int] = []
        for _key, tied in itertools.groupby(order, keys.__getitem__):
            ranked += _among_equals(policy, ask, eligible, seen, list(tied), draw)
        order = ranked
    if draw & 0xFFFF >= 0x10000 - LEARNT:
        _explore(policy, keys, scores, order, draw)
    return [eligible[at] for at in order]


def weight_of(policy: EffectivePolicy, candidate: Candidate) -> int:
    """Its share among equals: what the policy says of its backend, or else its target's."""
    return policy.weights.get(candidate.backend_id, candidate.weight)


def is_saturated(candidate: Candidate, live: Live) -> bool:
    """Whether the backend has as many of our requests as it may or takes well, or says itself that
    it has more than it can do.
    """
    most, room = candidate.max_concurrency, live.room
    return (
        (most is not None and live.in_flight >= most)
        or (room is not None and live.in_flight >= room)
        or (live.waiting is not None and live.waiting >= QUEUE_FULL)
        or (live.cache_permille is not None and live.cache_permille >= CACHE_FULL)
    )


def is_out(live: Live, draw: int) -> bool:
    """Whether it is ejected, or on its way back and not for this request."""
    return live.share < 1_000 and (draw * 0x9E3779B1 >> 16 & 0xFFFF) * 1_000 >> 16 >= live.share


def _keys(
    policy: EffectivePolicy,
    scores: Sequence[Score],
    eligible: Sequence[Candidate],
    seen: Sequence[Live],
    draw: int,
) -> list[Key]:
    has_slo = bool(policy.objectives)
    keys = []
    for candidate, live, score in zip(eligible, seen, scores, strict=True):
        tier = _tier(policy, live) if has_slo else MEETS
        back = (
            _OUT
            if live.share < 1_000 and is_out(live, draw)
            else _FULL
            if is_saturated(candidate, live)
            else _TAKES
        )
        # Too slow already: speed matters now, not the preference.
        keys.append((back, tier, _speed(live) if tier == BREACHES else score))
    return keys


def _tier(policy: EffectivePolicy, live: Live) -> int:
    """As the filters have it; but a window too thin for a percentile is known by its average."""
    tier = tier_of(policy, live)
    if tier != NO_DATA:
        return tier
    if live.ttft_p95_us is None and live.ttft_ewma_us:
        for each in policy.objectives:
            if each.metric == "ttft" and live.ttft_ewma_us > each.most_us:
                return BREACHES
    return MEETS if policy.on_no_data == "allow" else NO_DATA


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
        return _fastest(costs, seen)
    if prefer == "balanced":
        return _balanced(costs, seen)
    places = [
        prefer.index(candidate.placement) if candidate.placement in prefer else len(prefer)
        for candidate in eligible
    ]
    return list(zip(places, costs, strict=True))


def _fastest(costs: Sequence[int], seen: Sequence[Live]) -> list[Score]:
    """Time to first token, lengthened by what is in flight; a quarter apart is equally fast. One
    never tried comes first: its first answer makes it known.
    """
    times = [_ttft_us(live, 0) * (_AS_LONG + live.in_flight) // _AS_LONG for live in seen]
    least = min(times)
    return [
        (least if time * 4 <= least * 5 else time, cost)
        for time, cost in zip(times, costs, strict=True)
    ]


def _balanced(costs: Sequence[int], seen: Sequence[Live]) -> list[Score]:
    """Cost and time to first token, each in thousandths of the best one's, added up. Time grows
    with what is in flight, so that the cheap and quick one is not drowned.
    """
    known = [live.ttft_ewma_us or live.ttft_p95_us for live in seen]
    fallback = min((ttft for ttft in known if ttft), default=1)
    times = [(t or fallback) * (live.in_flight + 1) for t, live in zip(known, seen, strict=True)]
    least_cost, least_time = max(min(costs), 1), min(times)
    return [
        (cost * 1000 // least_cost + time * 1000 // least_time, cost)
        for cost, time in zip(costs, times, strict=True)
    ]


def _ttft_us(live: Live, unknown: int) -> int:
    """The peak moving average, which follows in seconds; the percentile where this worker has not
    asked it yet.
    """
    return live.ttft_ewma_us or live.ttft_p95_us or unknown


def _among_equals(
    policy: EffectivePolicy,
    ask: Ask,
    eligible: Sequence[Candidate],
    seen: Sequence[Live],
    tied: list[int],
    draw: int,
) -> list[int]:
    if len(tied) < 2:
        return tied
    left = [(weight_of(policy, eligible[at]), at) for at in tied]
    weights = {weight for weight, _ in left}
    drawn = _by_weight(left, draw)
    if policy.prefer != "weighted":
        if ask.prefix and policy.affinity == "prefix" and len(weights) == 1:
            return affine(ask.prefix, drawn, eligible, seen)
        one, other = drawn[0], drawn[1]
        if weight_of(policy, eligible[one]) == weight_of(policy, eligible[other]) and _has_more(
            seen[one], seen[other], ask
        ):
            drawn[0], drawn[1] = other, one
    return drawn


def _has_more(one: Live, other: Live, ask: Ask) -> bool:
    """Whether the one has more to do: tokens in flight, by the time either takes if both are
    known.
    """
    tokens = ask.input_estimate + 1
    load, others = one.in_flight_tokens + tokens, other.in_flight_tokens + tokens
    if one.ttft_ewma_us and other.ttft_ewma_us:
        return load * one.ttft_ewma_us > others * other.ttft_ewma_us
    return load > others


def _by_weight(left: list[tuple[int, int]], draw: int) -> list[int]:
    """Draw without replacement: a weight of 9 against 1 comes first nine times in ten. Only as many
    as a plan can have: each draw looks at all that are left.
    """
    drawn: list[int] = []
    total = sum(weight for weight, _ in left)
    while total > 0 and len(left) > 1 and len(drawn) < MAX_ATTEMPTS:
        at = draw * total >> 32
        sums = itertools.accumulate(weight for weight, _ in left)
        weight, chosen = left.pop(next(index for index, upto in enumerate(sums) if at < upto))
        drawn.append(chosen)
        total -= weight
        draw = draw * 0x9E3779B1 + 0x7F4A7C15 & 0xFFFFFFFF
    return drawn + [chosen for _, chosen in left]


def _explore(
    policy: EffectivePolicy,
    keys: Sequence[Key],
    scores: Sequence[Score],
    order: list[int],
    draw: int,
) -> None:
    """Puts another one that takes traffic first: any where speed is preferred, else one that would
    come first if it were known to meet the objectives.
    """
    best = scores[order[0]]
    pool = [at for at in order[1:] if not keys[at][0] and keys[at][1] == NO_DATA]
    if draw & 0xFFFF >= 0x10000 - EXPLORED:
        pool = [at for at in order[1:] if not keys[at][0] and keys[at][1] != MEETS]
        if policy.prefer in _BY_SPEED:
            pool = [at for at in order[1:] if not keys[at][0]]
    if policy.prefer not in _BY_SPEED:
        pool = [at for at in pool if scores[at] <= best]
    if pool:
        at = pool[(draw >> 16) % len(pool)]
        order.remove(at)
        order.insert(0, at)
