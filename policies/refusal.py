"""Nobody is left: the one refusal the caller reads, with its code, its cause and what to do next.

Messages name models, jurisdictions and policies; backends never (their names do not leave).
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from billing.money import format_picos
from policies import residency
from policies.candidates import Candidate, Live
from policies.cost import worst_charge_picos
from policies.decision import Deny, DenyCode
from policies.filters import RULES, UNSEEN, Case, Reason, Verdict

_STAGE: Final = {reason: stage for stage, (reason, _rule) in enumerate(RULES)}
_RETRY_MS: Final = 1000  # the least a caller should wait for a backend to come back
_JITTER_MS: Final = 4000  # spread over this, so that callers do not come back together


def refusal(
    case: Case,
    candidates: Sequence[Candidate],
    verdicts: Sequence[Verdict],
    draw: int,
    live: Mapping[tuple[str, str], Live] = MappingProxyType({}),
) -> Deny:
    """The refusal of a request none of whose candidates is eligible. `draw` jitters the retry."""
    if not candidates:
        return Deny(
            DenyCode.NO_BACKEND,
            f"model {case.ask.model!r} has no backend; its administrator must give it a target",
        )
    decisive = max((verdict.reasons[0] for verdict in verdicts), key=_STAGE.__getitem__)
    rest = [
        candidate
        for candidate, verdict in zip(candidates, verdicts, strict=True)
        if verdict.reasons[0] == decisive
    ]
    deny = _SAY[decisive](case, rest, draw)
    if decisive is not Reason.RESTING:
        return deny
    seen = [live.get((c.backend_id, c.upstream_model), UNSEEN) for c in rest]
    jitter_ms = draw * _JITTER_MS >> 34
    return replace(deny, retry_after_ms=min(one.rest_ms for one in seen) + jitter_ms)


def _capability(case: Case, rest: Sequence[Candidate], _draw: int) -> Deny:
    nearest = min((case.needed - candidate.capabilities for candidate in rest), key=len)
    return Deny(
        DenyCode.UNSUPPORTED_CAPABILITY,
        f"model {case.ask.model!r} does not offer {_list(nearest)}; choose a model that does",
        param="model",
    )


def _context(case: Case, rest: Sequence[Candidate], _draw: int) -> Deny:
    largest = max(candidate.context_window or 0 for candidate in rest)
    return Deny(
        DenyCode.CONTEXT_LENGTH_EXCEEDED,
        f"the prompt is about {case.ask.input_estimate} tokens, and model {case.ask.model!r} takes "
        f"at most {largest}; shorten the prompt or choose a model with a larger context",
        param="messages" if case.ask.operation == "chat" else None,
    )


def _window(case: Case, rest: Sequence[Candidate], _draw: int) -> Deny:
    largest = max(candidate.context_window or 0 for candidate in rest)
    takes = f"at most {largest}" if largest else "an unknown number of"
    return Deny(
        DenyCode.UNSUPPORTED_CAPABILITY,
        f"model {case.ask.model!r} takes {takes} tokens, and this request may only go to "
        f"models that take {case.policy.least_context}{_by(case, 'least_context')}; "
        "choose a model with a larger context",
        param="model",
    )


def _residency(case: Case, _rest: Sequence[Candidate], _draw: int) -> Deny:
    return Deny(DenyCode.RESIDENCY_VIOLATION, _residency_message(case))


def _residency_message(case: Case) -> str:
    permitted = case.policy.residency or frozenset()
    where, by = residency.summary(permitted), _by(case, "residency")
    if not permitted:
        return f"no jurisdiction is permitted to this request{by}; its administrator must change it"
    if not case.gateway_jurisdictions:
        return (
            f"this request may only go to {where}{by}, and this gateway does not say where it "
            "stands; its operator must set METERHOUSE_JURISDICTION"
        )
    if not case.gateway_permitted:
        return (
            f"this request may only go to {where}{by}, and this gateway stands in "
            f"{_list(case.gateway_jurisdictions)}; send it to a gateway in {where}"
        )
    return (
        f"model {case.ask.model!r} has no backend that is certain to stay in {where}{by}; "
        "choose a model that is served there"
    )


def _data_class(case: Case, rest: Sequence[Candidate], _draw: int) -> Deny:
    lacking = min(
        (case.policy.data_classes - candidate.data_classes for candidate in rest), key=len
    )
    return Deny(
        DenyCode.MODEL_NOT_ALLOWED,
        f"model {case.ask.model!r} has no backend that is cleared for {_list(lacking)} data"
        f"{_by(case, 'data_classes')}; choose a model that is",
        param="model",
    )


def _unpriced(case: Case, _rest: Sequence[Candidate], _draw: int) -> Deny:
    return Deny(
        DenyCode.UNPRICED_MODEL,
        f"model {case.ask.model!r} has no price in force for this request; "
        "its administrator must add one",
    )


def _price_ceiling(case: Case, _rest: Sequence[Candidate], _draw: int) -> Deny:
    policy = case.policy
    ceilings = [
        f"{format_picos(most * 10**6)} per million {side} tokens{_by(case, field)}"
        for side, field, most in (
            ("input", "max_input_picos_per_token", policy.max_input_picos_per_token),
            ("output", "max_output_picos_per_token", policy.max_output_picos_per_token),
        )
        if most is not None
    ]
    return Deny(
        DenyCode.COST_CEILING_EXCEEDED,
        f"model {case.ask.model!r} costs more than the ceiling of {' and '.join(ceilings)}; "
        "choose a cheaper model",
        param="model",
    )


def _request_ceiling(case: Case, rest: Sequence[Candidate], _draw: int) -> Deny:
    cheapest = min(worst_charge_picos(candidate, case.ask) or 0 for candidate in rest)
    ceiling = case.policy.max_per_request_picos or 0
    return Deny(
        DenyCode.COST_CEILING_EXCEEDED,
        f"this request could cost up to {format_picos(cheapest)}, above the ceiling of "
        f"{format_picos(ceiling)} per request{_by(case, 'max_per_request_picos')}; "
        "ask for fewer output tokens or shorten the prompt",
    )


def _placement(case: Case, _rest: Sequence[Candidate], _draw: int) -> Deny:
    permitted = case.policy.placements or frozenset()
    return Deny(
        DenyCode.MODEL_NOT_ALLOWED,
        f"model {case.ask.model!r} has no backend placed {_list(permitted, 'or')}"
        f"{_by(case, 'placements')}; choose a model that is served there",
        param="model",
    )


def _unavailable(case: Case, _rest: Sequence[Candidate], draw: int) -> Deny:
    return Deny(
        DenyCode.NO_BACKEND,
        f"every backend that may serve model {case.ask.model!r} is down; try again shortly",
        retry_after_ms=_retry_after_ms(draw),
    )


def _resting(case: Case, _rest: Sequence[Candidate], draw: int) -> Deny:
    return Deny(
        DenyCode.OVERLOADED,
        f"every backend that may serve model {case.ask.model!r} is at its limit; retry as told",
        retry_after_ms=_retry_after_ms(draw),
    )


def _slo(case: Case, _rest: Sequence[Candidate], draw: int) -> Deny:
    what = "is slower than this key's policy allows, or not known to be quick enough"
    if case.policy.on_no_data != "refuse":
        what = "is slower than this key's policy allows"
    return Deny(
        DenyCode.OVERLOADED,
        f"every backend of model {case.ask.model!r} {what}{_by(case, 'objectives')}; "
        "try again shortly",
        retry_after_ms=_retry_after_ms(draw),
    )


_SAY: Final[dict[Reason, Callable[[Case, Sequence[Candidate], int], Deny]]] = {
    Reason.CAPABILITY: _capability,
    Reason.CONTEXT: _context,
    Reason.WINDOW: _window,
    Reason.RESIDENCY: _residency,
    Reason.DATA_CLASS: _data_class,
    Reason.UNPRICED: _unpriced,
    Reason.PRICE_CEILING: _price_ceiling,
    Reason.REQUEST_CEILING: _request_ceiling,
    Reason.PLACEMENT: _placement,
    Reason.UNAVAILABLE: _unavailable,
    Reason.RESTING: _resting,
    Reason.SLO: _slo,
}


def _retry_after_ms(draw: int) -> int:
    return _RETRY_MS + (draw * _JITTER_MS >> 32)


def _by(case: Case, field: str) -> str:
    source = case.policy.sources.get(field)
    return f" (policy {source})" if source else ""


def _list(words: frozenset[str], last: str = "and") -> str:
    ordered = sorted(words)
    if len(ordered) < 2:
        return "".join(ordered) or "nowhere"
    return f"{', '.join(ordered[:-1])} {last} {ordered[-1]}"
