"""Whether a request has, or would have, a second backend beside a slow first one, and why not."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from policies.compile import EffectivePolicy
from policies.facts import Facts, reasons_of
from policies.filters import Reason
from policies.hedging import WHY_NOT

Plain = dict[str, Any]


def explain_hedge(
    policy: EffectivePolicy, planned: int, against: Sequence[Sequence[Reason]]
) -> Plain:
    """Of a request whose plan has so many candidates; `against` each of the model's. `why_not` is
    None where a hedge is begun once the first attempt has been silent for `after_ms`.
    """
    return {
        "after_ms": policy.hedge_after_ms,
        "percent": policy.hedge_percent,
        "why_not": _never(policy, planned, against),
    }


def hedge_of(policy: EffectivePolicy, decided: Facts) -> Plain:
    """The same of a request that was decided, with `attempt`: the number of the one that was begun
    beside another; None: none was.
    """
    planned = len(decided.afforded or decided.order)
    told = explain_hedge(policy, planned, [reasons_of(bits) for bits in decided.against])
    if decided.hedged is not None:
        return told | {"attempt": decided.hedged, "why_not": None}
    return told | {"attempt": None, "why_not": told["why_not"] or _was_not(policy, decided)}


def _was_not(policy: EffectivePolicy, decided: Facts) -> str:
    """Why there was none, where there could have been."""
    if decided.refusal:
        return "nothing was sent"
    if decided.shadow_of:
        return "a shadow is sent once"
    if decided.unhedged is None:
        return "unknown: it was decided before reasons were recorded"
    if decided.unhedged:
        return WHY_NOT.get(decided.unhedged, decided.unhedged)
    return f"no attempt was silent for {policy.hedge_after_ms} ms"


def _never(
    policy: EffectivePolicy, planned: int, against: Sequence[Sequence[Reason]]
) -> str | None:
    if policy.hedge_after_ms is None:
        return "off: no policy sets retries.hedge_after_ms"
    if policy.hedge_percent == 0:
        return "off: retries.hedge_percent is 0"
    if planned > 1:
        return None
    if planned == 0:
        return "nothing is sent"
    if policy.max_attempts == 1:
        return "no second candidate: retries.max_attempts is 1"
    out = Counter(reasons[0] for reasons in against if reasons)
    if not out:
        return "no second candidate: " + (
            "the model has one target" if len(against) == 1 else "no budget covers another"
        )
    said = ", ".join(f"{reason} keeps {count} out" for reason, count in sorted(out.items()))
    return f"no second candidate: {said}"
