"""A finished request as its observers see it: sizes, times and names, never content (L12)."""

from collections import Counter

from billing.meters import Meters
from gateway.dataplane.flow import Attempt, Flow
from gateway.telemetry.names import ErrorType
from gateway.telemetry.record import AttemptRecord, RequestRecord


def record_of(flow: Flow) -> RequestRecord:
    """The one thing handed to telemetry."""
    arrival, principal, ask = flow.arrival, flow.principal, flow.ask
    attempts = tuple(map(_attempt, flow.attempts))
    last = flow.attempts[-1] if flow.attempts else None
    return RequestRecord(
        request_id=arrival.request_id,
        trace=flow.trace,
        route=flow.route_path,
        status=flow.status,
        started_us=arrival.arrived_us,
        finished_us=flow.finished_us,
        operation=flow.operation,
        model=ask.model if ask is not None else "",
        upstream_model=last.way.candidate.upstream_model if last is not None else "",
        provider=last.way.provider if last is not None else "",
        tenant_id=principal.tenant.id if principal is not None else "",
        team_id=principal.teams[-1].id if principal is not None else "",
        key_id=principal.key.id if principal is not None else "",
        code=flow.deny.code.value if flow.deny is not None else "",
        error_type=ErrorType.CLIENT_DISCONNECT if flow.gone else last.error_type if last else "",
        stream=ask.stream if ask is not None else False,
        end_by=flow.end_by,
        end_phase=flow.end_phase,
        overhead_us=_overhead_us(flow),
        admit_started_us=flow.admit_started_us,
        admitted_us=flow.admitted_us,
        ttft_us=flow.first_content_us - arrival.arrived_us if flow.first_content_us else -1,
        chunks=flow.chunks,
        attempts=attempts,
        meters=flow.meters or Meters(),
        reasoning=flow.reasoning,
        provenance=flow.provenance,
        charge_picos=flow.charge_picos,
        currency=principal.tenant.currency if principal is not None else "",
        finish_reasons=last.finish_reasons if last is not None else (),
        max_tokens=flow.granted.output_tokens if flow.granted is not None else 0,
        choices=ask.choices if ask is not None else 1,
        rejected=_rejected(flow),
    )


def _attempt(attempt: Attempt) -> AttemptRecord:
    way = attempt.way
    return AttemptRecord(
        backend_id=way.candidate.backend_id,
        region=way.candidate.region,
        server_address=way.endpoint.host,
        server_port=way.endpoint.port,
        started_us=attempt.started_us,
        finished_us=attempt.finished_us or attempt.started_us,
        first_byte_us=attempt.head_us,
        status=attempt.status,
        error_type=attempt.error_type,
    )


def _overhead_us(flow: Flow) -> int:
    """The time no backend was busy with this request."""
    whole = flow.finished_us - flow.arrival.arrived_us
    upstream = sum(max(0, a.finished_us - a.started_us) for a in flow.attempts)
    return max(0, whole - upstream)


def _rejected(flow: Flow) -> tuple[tuple[str, int], ...]:
    reasons = [v.reasons[0] for v in flow.verdicts if not v.eligible and v.reasons]
    return tuple(sorted(Counter(reasons).items())) if reasons else ()
