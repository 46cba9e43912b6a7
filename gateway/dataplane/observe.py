"""A finished request as its observers see it: sizes, times and names, never content (L12)."""

from collections import Counter
from functools import lru_cache

from billing.meters import Meters
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.snapshot import Principal
from gateway.telemetry.names import ErrorType
from gateway.telemetry.record import AttemptRecord, RequestRecord
from policies.filters import Reason

_NOTHING = Meters()


def record_of(flow: Flow) -> RequestRecord:
    """The one thing handed to telemetry. In the order of its fields, as that asks for."""
    arrival, ask, deny, granted = flow.arrival, flow.ask, flow.deny, flow.granted
    tenant_id, team_id, key_id, currency = _who(flow.principal)
    last = flow.attempts[-1] if flow.attempts else None
    reasons = [verdict.reasons[0] for verdict in flow.verdicts if verdict.reasons]
    return RequestRecord(
        arrival.request_id,
        flow.trace,
        flow.route_path,
        flow.status,
        arrival.arrived_us,
        flow.finished_us,
        flow.operation,
        ask.model if ask is not None else "",
        last.way.candidate.upstream_model if last is not None else "",
        last.way.provider if last is not None else "",
        tenant_id,
        team_id,
        key_id,
        deny.code.value if deny is not None else "",
        ErrorType.CLIENT_DISCONNECT if flow.gone else last.error_type if last is not None else "",
        ask.stream if ask is not None else False,
        flow.end_by,
        flow.end_phase,
        _overhead_us(flow),
        flow.admit_started_us,
        flow.admitted_us,
        flow.first_content_us - arrival.arrived_us if flow.first_content_us else -1,
        flow.chunks,
        tuple(map(_attempt, flow.attempts)),
        flow.meters or _NOTHING,
        flow.reasoning,
        flow.provenance,
        flow.charge_picos,
        currency,
        last.finish_reasons if last is not None else (),
        granted.output_tokens if granted is not None else 0,
        ask.choices if ask is not None else 1,
        _counted(tuple(reasons)) if reasons else (),
    )


def _who(principal: Principal | None) -> tuple[str, str, str, str]:
    if principal is None:
        return "", "", "", ""
    tenant = principal.tenant
    return tenant.id, principal.team_path[-1], principal.key.id, tenant.currency


def _attempt(attempt: Attempt) -> AttemptRecord:
    way = attempt.way
    candidate, endpoint = way.candidate, way.endpoint
    return AttemptRecord(
        candidate.backend_id,
        candidate.region,
        endpoint.host,
        endpoint.port,
        attempt.started_us,
        attempt.finished_us or attempt.started_us,
        attempt.head_us,
        attempt.status,
        attempt.error_type,
        "",
        attempt.number,
        attempt.beside,
    )


def _overhead_us(flow: Flow) -> int:
    """The time no backend was busy with this request."""
    own = flow.finished_us - flow.arrival.arrived_us - flow.queued_us
    until = 0  # hedged attempts overlap
    for attempt in flow.attempts if len(flow.attempts) < 2 else _as_begun(flow.attempts):
        began = attempt.started_us if attempt.started_us > until else until
        if attempt.finished_us > began:
            own -= attempt.finished_us - began
            until = attempt.finished_us
    return own if own > 0 else 0


def _as_begun(attempts: list[Attempt]) -> list[Attempt]:
    return sorted(attempts, key=lambda each: each.started_us)


@lru_cache(maxsize=1024)
def _counted(reasons: tuple[Reason, ...]) -> tuple[tuple[str, int], ...]:
    """How many candidates failed at what first; the same few cases come again and again."""
    return tuple(sorted(Counter(reason.value for reason in reasons).items()))
