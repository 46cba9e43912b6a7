"""gateway.telemetry.record"""

from gateway.telemetry.record import TraceIds
from gateway.telemetry.sampling import parent_of


def test_a_backend_sees_the_span_of_its_own_try() -> None:
    ids = TraceIds(trace_id=0xABC, span_id=0x10, parent_span_id=0, sampled=True)

    assert ids.traceparent(0) == b"00-00000000000000000000000000000abc-0000000000000013-01"
    assert parent_of(ids.traceparent(1)) == (0xABC, ids.attempt_span_id(1))


def test_what_is_not_kept_is_not_asked_of_backends_either() -> None:
    ids = TraceIds(trace_id=1, span_id=1, parent_span_id=0, sampled=False)

    assert ids.traceparent(0).endswith(b"-00")


def test_the_spans_of_a_request_have_different_ids() -> None:
    ids = TraceIds(trace_id=1, span_id=5, parent_span_id=0, sampled=True)

    spans = [ids.span_id, ids.admission_span_id, ids.client_span_id]
    spans += [ids.attempt_span_id(attempt) for attempt in range(5)]

    assert len(set(spans)) == 8
