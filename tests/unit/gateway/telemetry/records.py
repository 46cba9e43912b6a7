"""Valid records; a test names only the fields it is about."""

from typing import Any

from billing.meters import Meters, Provenance
from gateway.telemetry.record import AttemptRecord, RequestRecord, TraceIds

AT_US = 1_763_762_400_000_000  # 2025-11-21T22:00:00Z
IDS = TraceIds(
    trace_id=0x4BF92F3577B34DA6A3CE929D0E0E4736, span_id=100, parent_span_id=0, sampled=True
)


def attempt(**fields: Any) -> AttemptRecord:
    given: dict[str, Any] = {
        "backend_id": "be_eu",
        "region": "eu-central",
        "server_address": "10.0.0.7",
        "server_port": 8000,
        "started_us": AT_US + 1_000,
        "first_byte_us": AT_US + 101_000,
        "finished_us": AT_US + 901_000,
        "status": 200,
    }
    return AttemptRecord(**(given | fields))


def answered(**fields: Any) -> RequestRecord:
    """A chat request that was answered by one backend."""
    given: dict[str, Any] = {
        "request_id": "req_1",
        "trace": IDS,
        "route": "/v1/chat/completions",
        "status": 200,
        "started_us": AT_US,
        "finished_us": AT_US + 902_000,
        "operation": "chat",
        "model": "chat-default",
        "upstream_model": "smollm2",
        "provider": "openai",
        "tenant_id": "ten_1",
        "team_id": "team_1",
        "key_id": "key_1",
        "end_by": "upstream",
        "end_phase": "done",
        "overhead_us": 2_000,
        "admit_started_us": AT_US + 300,
        "admitted_us": AT_US + 700,
        "attempts": (attempt(),),
        "meters": Meters(input=30, cache_read=70, output=41),
        "reasoning": 11,
        "provenance": Provenance.REPORTED,
        "charge_picos": 2_500_000_000,
        "currency": "USD",
        "finish_reasons": ("stop",),
        "response_id": "chatcmpl-1",
        "response_model": "smollm2-135m",
        "max_tokens": 256,
    }
    return RequestRecord(**(given | fields))


def streamed(**fields: Any) -> RequestRecord:
    """The same as a stream of 21 chunks."""
    return answered(**({"stream": True, "ttft_us": 102_000, "chunks": 21} | fields))


def refused(**fields: Any) -> RequestRecord:
    """A request that never reached a backend."""
    given: dict[str, Any] = {
        "request_id": "req_2",
        "trace": IDS,
        "route": "/v1/chat/completions",
        "status": 429,
        "started_us": AT_US,
        "finished_us": AT_US + 400,
        "operation": "chat",
        "model": "chat-default",
        "tenant_id": "ten_1",
        "team_id": "team_1",
        "key_id": "key_1",
        "code": "insufficient_quota",
        "error_type": "budget_exceeded",
        "end_by": "gateway",
        "end_phase": "connect",
    }
    return RequestRecord(**(given | fields))
