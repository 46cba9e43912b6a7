"""gateway.telemetry.spans, with attribute names checked against the published conventions."""

from typing import Any

from billing.meters import Meters
from gateway.telemetry import names
from gateway.telemetry.record import RequestRecord, TraceIds
from gateway.telemetry.spans import Kind, Span, spans_of
from tests.unit.gateway.telemetry import conventions
from tests.unit.gateway.telemetry.records import AT_US, answered, attempt, refused, streamed


def attributes(span: Span) -> dict[str, Any]:
    return dict(span.attributes)


def failed_over() -> RequestRecord:
    down = attempt(backend_id="be_us", status=0, error_type="connect_failed", first_byte_us=0)
    return streamed(attempts=(down, attempt(number=1, started_us=AT_US + 3_000)))


def test_a_stream_with_failover_is_one_tree() -> None:
    server, admission, client, first, second = spans_of(failed_over())

    assert [span.name for span in (server, admission, client, first, second)] == [
        "POST /v1/chat/completions",
        "admission",
        "chat smollm2",
        "POST",
        "POST",
    ]
    assert [span.kind for span in (server, admission, client, first, second)] == [
        *(Kind.SERVER, Kind.INTERNAL, Kind.CLIENT, Kind.CLIENT, Kind.CLIENT)
    ]
    assert server.parent_id == 0
    assert admission.parent_id == client.parent_id == server.span_id
    assert first.parent_id == second.parent_id == client.span_id
    assert len({span.span_id for span in spans_of(failed_over())}) == 5


def test_the_client_span_has_only_published_attributes_besides_our_own() -> None:
    found = attributes(spans_of(failed_over())[2])

    published = {name for name in found if not name.startswith("meterhouse.")}
    assert conventions.INFERENCE_SPAN_REQUIRED <= published <= conventions.INFERENCE_SPAN
    assert found["gen_ai.operation.name"] in conventions.OPERATIONS


def test_the_client_span_says_what_was_asked_and_used() -> None:
    found = attributes(spans_of(streamed())[2])

    assert found["gen_ai.provider.name"] == "openai"
    assert found["gen_ai.request.model"] == "smollm2"
    assert found["gen_ai.response.model"] == "smollm2-135m"
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.request.max_tokens"] == 256
    assert found["gen_ai.usage.input_tokens"] == 100
    assert found["gen_ai.usage.cache_read.input_tokens"] == 70
    assert found["gen_ai.usage.output_tokens"] == 41
    assert found["gen_ai.usage.reasoning.output_tokens"] == 11
    assert found["gen_ai.response.finish_reasons"] == ("stop",)
    assert found["gen_ai.response.time_to_first_chunk"] == 0.1
    assert (found["server.address"], found["server.port"]) == ("10.0.0.7", 8000)


def test_what_is_only_said_when_unusual_is_not_said_otherwise() -> None:
    usual = attributes(spans_of(answered())[2])
    unusual = attributes(spans_of(answered(choices=2, finish_reasons=("stop", "length")))[2])

    assert not {"gen_ai.request.stream", "gen_ai.request.choice.count", "error.type"} & set(usual)
    assert unusual["gen_ai.request.choice.count"] == 2


def test_a_cut_stream_has_error_where_a_finish_reason_was_expected() -> None:
    cut = streamed(finish_reasons=(), status=200, error_type="stream_truncated")

    client = spans_of(cut)[2]

    assert attributes(client)["gen_ai.response.finish_reasons"] == ("error",)
    assert attributes(client)["error.type"] == "stream_truncated"
    assert client.error


def test_each_try_says_which_one_it_was_and_how_it_failed() -> None:
    first, second = spans_of(failed_over())[3:]

    assert attributes(first)["error.type"] == "connect_failed"
    assert "http.response.status_code" not in attributes(first)
    assert first.error
    assert attributes(second)["http.request.resend_count"] == 1
    assert attributes(second)["http.response.status_code"] == 200
    assert not second.error


def test_a_refusal_is_no_error_of_the_server() -> None:
    (server,) = spans_of(refused())

    assert not server.error
    assert attributes(server)["meterhouse.refusal.code"] == "insufficient_quota"
    assert attributes(server)["http.response.status_code"] == 429


def test_a_5xx_is_an_error_of_the_server() -> None:
    server = spans_of(answered(status=503, attempts=()))[0]

    assert server.error
    assert attributes(server)["error.type"] == "503"


def test_a_callers_trace_is_continued_by_the_server_span() -> None:
    ids = TraceIds(trace_id=7, span_id=100, parent_span_id=42, sampled=True)

    server = spans_of(refused(trace=ids))[0]

    assert server.parent_is_remote
    assert server.parent_id == 42


def test_the_try_a_backend_was_told_of_is_the_one_that_is_shown() -> None:
    record = failed_over()

    told = record.trace.traceparent(1).decode().split("-")

    second = spans_of(record)[4]
    assert (record.trace.trace_hex, f"{second.span_id:016x}") == (told[1], told[2])


def test_embeddings_generate_nothing_and_finish_for_no_reason() -> None:
    record = answered(operation="embeddings", meters=Meters(input=9), finish_reasons=())

    client = spans_of(record)[2]

    assert client.name == "embeddings smollm2"
    assert attributes(client)[names.INPUT_TOKENS] == 9
    assert names.OUTPUT_TOKENS not in attributes(client)
    assert names.FINISH_REASONS not in attributes(client)


def test_times_are_those_of_the_record() -> None:
    server = spans_of(answered())[0]

    assert server.started_us == AT_US
    assert server.finished_us == AT_US + 902_000
