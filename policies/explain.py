"""A decision in plain data: every candidate with its reasons as sentences, every field with the
document that set it. For administrators: unlike a refusal's message, it names backends.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from billing.money import format_picos
from policies import residency
from policies.ask import Ask
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.cost import expected_cost_picos, worst_charge_picos
from policies.decision import Deny
from policies.experiment import Experiment
from policies.explain_hedge import explain_hedge
from policies.filters import UNSEEN, Case, Reason, case_of, judge
from policies.hedging import WHY_NOT
from policies.rank import is_saturated, weight_of
from policies.route import route
from policies.shadow import Shadow

Plain = dict[str, Any]

_WRITTEN_AS: Final = {
    "max_per_request_picos": "max_per_request",
    "max_input_picos_per_token": "max_input_per_million",
    "max_output_picos_per_token": "max_output_per_million",
    "hour_ceilings": "max_per_team_hour",
}


def explain(
    policy: EffectivePolicy,
    ask: Ask,
    candidates: Sequence[Candidate],
    live: Mapping[tuple[str, str], Live] | None,
    gateway_jurisdictions: frozenset[str],
    draw: int,
) -> Plain:
    """What `route` decides of this request and why. Money is decimal text, times milliseconds.
    Without `live` nothing is known of the candidates: they are judged as if never tried, and what
    would be seen of them is None.
    """
    case = case_of(policy, ask, gateway_jurisdictions)
    known = {} if live is None else live
    routed = route(policy, ask, candidates, known, gateway_jurisdictions, draw)
    attempts = () if isinstance(routed, Deny) else routed.attempts
    verdicts = judge(case, candidates, known)
    return {
        "decision": "refuse" if isinstance(routed, Deny) else "serve",
        "refusal": _refusal(routed) if isinstance(routed, Deny) else None,
        "attempts": [_place(each) for each in attempts],
        "candidates": [
            _candidate(case, candidate, verdict.reasons, live, attempts)
            for candidate, verdict in zip(candidates, verdicts, strict=True)
        ],
        "hedge": _hedge(case, attempts, [verdict.reasons for verdict in verdicts], known),
        "policy": explain_policy(policy),
    }


def named(told: Plain, names: Mapping[str, str]) -> Plain:
    """The same with the names of backends beside their ids."""
    places = [*told["attempts"], *told["candidates"]]
    if (hedge := told.get("hedge")) is not None and hedge.get("to") is not None:
        places.append(hedge["to"])
    for place in places:
        place["backend"] = names.get(place["backend_id"])
    if "when_exhausted" in told:
        named(told["when_exhausted"], names)
    return told


def explain_policy(policy: EffectivePolicy) -> Plain:
    """Every field with its value and `set_by`: the document, or None for the default. Amounts stand
    as documents write them, under the documents' names.
    """
    return {
        _WRITTEN_AS.get(field, field): {
            "value": _plain(field, getattr(policy, field)),
            "set_by": policy.sources.get(field),
        }
        for field in EffectivePolicy.__struct_fields__
        if field != "sources"
    }


def _hedge(
    case: Case,
    attempts: Sequence[Candidate],
    against: Sequence[Sequence[Reason]],
    live: Mapping[tuple[str, str], Live],
) -> Plain:
    """With `to`: who would be asked beside the first, were that one silent now."""
    told = explain_hedge(case.policy, len(attempts), against)
    if told["why_not"] is not None:
        return told | {"to": None}
    second = attempts[1]
    seen = live.get((second.backend_id, second.upstream_model), UNSEEN)
    if is_saturated(second, seen):
        return told | {"to": None, "why_not": WHY_NOT["full"]}
    return told | {"to": _place(second)}


def _place(candidate: Candidate) -> Plain:
    return {"backend_id": candidate.backend_id, "upstream_model": candidate.upstream_model}


def _refusal(deny: Deny) -> Plain:
    return {
        "code": deny.code.value,
        "message": deny.message,
        "param": deny.param,
        "retry_after_ms": deny.retry_after_ms,
    }


def _candidate(
    case: Case,
    candidate: Candidate,
    reasons: Sequence[Reason],
    live: Mapping[tuple[str, str], Live] | None,
    attempts: Sequence[Candidate],
) -> Plain:
    seen = (live or {}).get((candidate.backend_id, candidate.upstream_model), UNSEEN)
    shown = _seen(candidate, seen)
    worst = worst_charge_picos(candidate, case.ask)
    return {
        "backend_id": candidate.backend_id,
        "upstream_model": candidate.upstream_model,
        "region": candidate.region,
        "placement": candidate.placement,
        "jurisdictions": sorted(candidate.jurisdictions),
        "data_classes": sorted(candidate.data_classes),
        "eligible": not reasons,
        "reasons": [f"{reason}: {_SENTENCES[reason](case, candidate, seen)}" for reason in reasons],
        "attempt": attempts.index(candidate) if candidate in attempts else None,
        "weight": weight_of(case.policy, candidate),
        "expected_cost": format_picos(expected_cost_picos(candidate, case.ask)),
        "worst_charge": None if worst is None else format_picos(worst),
        **(dict.fromkeys(shown) if live is None else shown),
    }


def _seen(candidate: Candidate, seen: Live) -> Plain:
    return {
        "ttft_p95_ms": _ms(seen.ttft_p95_us),
        "tpot_p95_ms": _ms(seen.tpot_p95_us),
        "total_p95_ms": _ms(seen.total_p95_us),
        "samples": seen.samples,
        "in_flight": seen.in_flight,
        "saturated": is_saturated(candidate, seen),
        "share_permille": seen.share,
        "room": seen.room,
        "queued_there": seen.waiting,
        "cache_used_permille": seen.cache_permille,
    }


def _capability(case: Case, candidate: Candidate, _seen: Live) -> str:
    return f"does not offer {', '.join(sorted(case.needed - candidate.capabilities))}"


def _context(case: Case, candidate: Candidate, _seen: Live) -> str:
    return (
        f"about {case.ask.input_estimate} tokens of prompt, "
        f"a context window of {candidate.context_window}"
    )


def _window(case: Case, candidate: Candidate, _seen: Live) -> str:
    window = "unknown" if candidate.context_window is None else candidate.context_window
    return f"a context window of {window}, at least {case.policy.least_context} wanted"


def _data_class(case: Case, candidate: Candidate, _seen: Live) -> str:
    lacking = ", ".join(sorted(case.policy.data_classes - candidate.data_classes))
    return f"not cleared for {lacking} data"


def _residency(case: Case, candidate: Candidate, _seen: Live) -> str:
    permitted = case.policy.residency or frozenset()
    where = residency.summary(permitted)
    if not case.gateway_permitted:
        stands = ", ".join(sorted(case.gateway_jurisdictions)) or "an undeclared jurisdiction"
        return f"the gateway stands in {stands}; permitted: {where}"
    if not candidate.jurisdictions:
        return f"the backend declares no jurisdiction; permitted: {where}"
    beyond = ", ".join(sorted(candidate.jurisdictions - permitted))
    return f"the law of {beyond} reaches the backend; permitted: {where}"


def _unpriced(_case: Case, candidate: Candidate, _seen: Live) -> str:
    side = "input" if candidate.charge_input_picos is None else "output"
    return f"no charge price for {side} tokens"


def _price_ceiling(case: Case, candidate: Candidate, _seen: Live) -> str:
    policy = case.policy
    return ", ".join(
        f"{side} costs {_per_million(price or 0)} per million, at most {_per_million(most)} allowed"
        for side, price, most in (
            ("input", candidate.charge_input_picos, policy.max_input_picos_per_token),
            ("output", candidate.charge_output_picos, policy.max_output_picos_per_token),
        )
        if most is not None and (price or 0) > most
    )


def _request_ceiling(case: Case, candidate: Candidate, _seen: Live) -> str:
    worst = format_picos(worst_charge_picos(candidate, case.ask) or 0)
    most = format_picos(case.policy.max_per_request_picos or 0)
    return f"could cost {worst}, at most {most} a request allowed"


def _placement(case: Case, candidate: Candidate, _seen: Live) -> str:
    permitted = ", ".join(sorted(case.policy.placements or ())) or "none"
    return f"placed {candidate.placement}; permitted: {permitted}"


def _unavailable(_case: Case, _candidate: Candidate, _seen: Live) -> str:
    return "the circuit breaker is open after failures"


def _resting(_case: Case, _candidate: Candidate, seen: Live) -> str:
    return f"asked to be left alone for another {seen.rest_ms} ms"


def _slo(case: Case, _candidate: Candidate, seen: Live) -> str:
    told = []
    for each in case.policy.objectives:
        measured = each.measured(seen)
        name, window = f"p{each.percentile} of {_SHOWN[each.metric]}", f"{each.window_s} s"
        if measured is None and case.policy.on_no_data == "refuse":
            told.append(f"too few samples in {window} for the {name}")
        elif measured is not None and measured > each.most_us:
            told.append(f"{name} is {_ms(measured)} ms, the objective {_ms(each.most_us)} ms")
    if case.policy.on_breach == "shed" and seen.in_flight:
        told.append(f"{seen.in_flight} requests are there already")
    return ", ".join(told)


_SHOWN: Final = {"ttft": "TTFT", "tpot": "TPOT", "total": "the whole answer"}

_SENTENCES: Final[dict[Reason, Callable[[Case, Candidate, Live], str]]] = {
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


def _plain(field: str, value: Any) -> Any:
    if value is None:
        return None
    if field == "residency":
        return residency.summary(value).split(", ") if value else []
    if field == "experiment":
        return _experiment(value)
    if field == "objectives":
        return [
            {
                "metric": each.metric,
                "percentile": each.percentile,
                "window_s": each.window_s,
                "most_ms": _ms(each.most_us),
            }
            for each in value
        ]
    if field == "max_per_request_picos":
        return format_picos(value)
    if field == "hour_ceilings":
        return [
            {"team_of": {each.scope_kind: each.scope_id}, "most": format_picos(each.picos)}
            for each in value
        ]
    if field.endswith("_picos_per_token"):
        return _per_million(value)
    if isinstance(value, frozenset):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value


def _experiment(experiment: Experiment) -> Plain:
    shadow = experiment.shadow
    return {
        "name": experiment.name,
        "by": experiment.by,
        "split": dict(experiment.split),
        "shadow": None if shadow is None else explain_shadow(shadow),
    }


def explain_shadow(shadow: Shadow) -> Plain:
    """What it is, as its document has it."""
    return {
        "model": shadow.model,
        "percent": shadow.percent,
        "payer": {"key": shadow.payer},
        "scope": {shadow.scope_kind: shadow.scope_id},
    }


def _per_million(picos_per_token: int) -> str:
    return format_picos(picos_per_token * 1_000_000)


def _ms(micros: int | None) -> int | None:
    return None if micros is None else -(-micros // 1000)
