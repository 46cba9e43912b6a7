"""gateway.telemetry.genai"""

from typing import Any

import pytest

from billing.meters import Meters, Provenance
from tests.unit.gateway.telemetry.readings import booked, cells, count, total
from tests.unit.gateway.telemetry.records import answered, attempt, refused, streamed

MS = 1_000


def test_prompt_tokens_include_cached_ones_and_output_includes_reasoning() -> None:
    registry = booked(answered())

    usage: dict[str, Any] = {"gen_ai__token__type": "input"}
    assert total(registry, "gen_ai.client.token.usage", **usage) == 100
    usage["gen_ai__token__type"] = "output"
    assert total(registry, "gen_ai.client.token.usage", **usage) == 41
    newer = "gen_ai.client.inference.usage."
    assert total(registry, newer + "input_tokens", gen_ai__token__modality="text") == 100
    assert total(registry, newer + "cache_read.input_tokens") == 70
    assert total(registry, newer + "output_tokens") == 41
    assert total(registry, newer + "reasoning.output_tokens") == 11


@pytest.mark.parametrize("provenance", [None, Provenance.ESTIMATED])
def test_unknown_usage_is_absent_from_histograms_and_a_zero_of_the_newer_counters(
    provenance: Provenance | None,
) -> None:
    registry = booked(answered(provenance=provenance, meters=Meters(input=100)))

    assert count(registry, "gen_ai.client.token.usage") == 0
    assert count(registry, "gen_ai.client.inference.operation.input_tokens") == 0
    name = "gen_ai.client.inference.usage.input_tokens"
    assert cells(registry, name, gen_ai__token__modality="unknown") == [0]


def test_an_operation_lasts_from_its_first_try_to_the_end_of_its_last() -> None:
    record = streamed()
    start = record.attempts[0].started_us
    tries = (
        attempt(backend_id="be_a", status=503, finished_us=start + 20 * MS),
        attempt(started_us=start + 21 * MS, first_byte_us=start + 50 * MS),
    )

    registry = booked(streamed(attempts=tries))

    lasted = tries[1].finished_us - start
    assert total(registry, "gen_ai.client.operation.duration") == lasted
    assert total(registry, "gen_ai.client.inference.duration") == lasted
    assert total(registry, "gen_ai.client.operation.time_to_first_chunk") == 50 * MS


def test_a_stream_reports_first_token_and_time_between_tokens_and_chunks() -> None:
    registry = booked(streamed())

    assert total(registry, "gen_ai.server.time_to_first_token") == 102 * MS
    assert total(registry, "gen_ai.server.time_per_output_token") == 800 * MS // 40
    assert count(registry, "gen_ai.client.operation.time_per_output_chunk") == 20
    assert total(registry, "gen_ai.client.operation.time_per_output_chunk") == 800 * MS


def test_a_plain_answer_reports_no_chunk_times() -> None:
    registry = booked(answered())

    assert count(registry, "gen_ai.client.operation.time_to_first_chunk") == 0
    assert count(registry, "gen_ai.server.time_to_first_token") == 0
    assert count(registry, "gen_ai.server.request.duration") == 1


def test_a_request_that_reached_no_backend_is_no_genai_operation() -> None:
    registry = booked(refused())

    shown = {name for values in registry.values() if values.rows for name in values.family.names}
    assert not [name for name in shown if name.startswith("gen_ai.")]


def test_embeddings_have_their_own_newer_names() -> None:
    registry = booked(answered(operation="embeddings", meters=Meters(input=12)))

    asked = {"gen_ai__operation__name": "embeddings"}
    assert count(registry, "gen_ai.client.embeddings.duration") == 1
    assert count(registry, "gen_ai.client.operation.duration", **asked) == 1
    assert count(registry, "gen_ai.client.inference.duration") == 0 or not cells(
        registry, "gen_ai.client.inference.duration", **asked
    )
    assert total(registry, "gen_ai.client.embeddings.operation.input_tokens") == 12


def test_clients_ask_for_the_upstream_model_and_our_clients_for_the_catalogues() -> None:
    registry = booked(answered())

    client = {"gen_ai__request__model": "smollm2", "server__port": "8000"}
    server = {"gen_ai__request__model": "chat-default", "gen_ai__response__model": "smollm2"}
    assert count(registry, "gen_ai.client.operation.duration", **client) == 1
    assert count(registry, "gen_ai.server.request.duration", **server) == 1


def test_an_error_is_a_label_of_durations() -> None:
    registry = booked(answered(status=502, provenance=None, error_type="upstream_reset"))
    assert count(registry, "gen_ai.client.operation.duration", error__type="upstream_reset") == 1

    registry = booked(answered(status=502, provenance=None))
    assert count(registry, "gen_ai.client.operation.duration", error__type="502") == 1
