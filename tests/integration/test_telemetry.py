"""One request as its observers see it: a trace that is a tree, metrics, an access log; no
content.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.telemetry import names
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend
from tests.unit.gateway.telemetry import conventions
from tests.unit.gateway.telemetry.collector import collector

SECRET = "the canary sang at dawn"
HTTP = {
    "http.request.method",
    "http.request.resend_count",
    "http.response.status_code",
    "http.route",
    "url.scheme",
    "server.address",
    "server.port",
    "error.type",
}
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


async def _failover(house: House, first: ScriptedBackend, second: ScriptedBackend) -> World:
    """A streamed request that the first backend refuses and the second answers."""
    world = await furnish(
        house,
        {"base_url": first.base_url, "trusted": True},
        {"base_url": second.base_url, "region": "eu-west"},
    )
    for backend, amount in zip(world.backends, ("1", "2"), strict=True):
        for meter in ("input", "output"):
            await house.make(
                "prices",
                book="cost",
                backend_id=backend["id"],
                upstream_model="m",
                meter=meter,
                amount_per_million=amount,
                currency="USD",
                effective_from="2026-01-01T00:00:00Z",
            )
    await house.in_force()
    first.script = Script(status=503)
    body = {
        "model": "chat",
        "stream": True,
        "messages": [{"role": "user", "content": SECRET}],
    }
    headers = {"authorization": f"Bearer {world.secret}", "traceparent": CALLER}
    answer = await house.client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200
    await house.settled()
    return world


def _attributes(span: Any) -> dict[str, Any]:
    return {a.key: _value(a.value) for a in span.attributes}


def _value(value: Any) -> Any:
    if value.WhichOneof("value") == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, value.WhichOneof("value"))


def _tree(children: dict[bytes, list[Any]], span: Any, depth: int = 0) -> list[str]:
    """A line for each span, indented below its parent: name, duration, conventional attributes."""
    took_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    shown = {k: v for k, v in _attributes(span).items() if not k.startswith("meterhouse.")}
    told = " ".join(f"{name}={value}" for name, value in sorted(shown.items()))
    lines = [f"{'  ' * depth}{span.name} ({took_ms:.1f} ms) {told}"]
    for child in sorted(children.get(span.span_id, []), key=lambda s: s.start_time_unix_nano):
        lines += _tree(children, child, depth + 1)
    return lines


def test_a_streamed_request_with_failover_is_one_tree_without_content(
    tmp_path: Path,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    figure: Callable[[str], None],
) -> None:
    async def scenario() -> ScriptedBackend:
        async with (
            ScriptedBackend() as first,
            ScriptedBackend() as second,
            open_house(tmp_path, store_url) as house,
        ):
            await _failover(house, first, second)
            assert first.book[0].headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211")
            assert "traceparent" not in second.book[0].headers
            return second

    with collector() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
        run(scenario())
        spans = {span.span_id: span for span in sink.spans()}
        bodies = b"".join(sink.bodies["/v1/traces"] + sink.bodies["/v1/metrics"])

    (root,) = [s for s in spans.values() if s.parent_span_id not in spans]
    children: dict[bytes, list[Any]] = {}
    for span in spans.values():
        children.setdefault(span.parent_span_id, []).append(span)
    assert root.name == "POST /v1/chat/completions"
    assert root.trace_id.hex() == CALLER[3:35]
    assert root.parent_span_id.hex() == CALLER[36:52]
    admission, client = sorted(children[root.span_id], key=lambda s: s.start_time_unix_nano)
    assert admission.name == names.ADMISSION_SPAN
    assert client.name == "chat m"
    attempts = sorted(children[client.span_id], key=lambda s: s.start_time_unix_nano)
    assert [_attributes(a)[names.HTTP_STATUS] for a in attempts] == [503, 200]
    assert _attributes(attempts[1])["http.request.resend_count"] == 1
    shown = _attributes(client)
    assert shown["gen_ai.operation.name"] == "chat"
    assert shown["gen_ai.provider.name"] == "openai"
    assert shown["gen_ai.request.model"] == "m"
    assert shown["gen_ai.usage.input_tokens"] == 9
    assert shown["gen_ai.usage.output_tokens"] == 16
    assert shown["gen_ai.request.stream"] is True
    assert SECRET.encode() not in bodies
    published = {name for name in shown if not name.startswith("meterhouse.")}
    assert conventions.INFERENCE_SPAN_REQUIRED <= published <= conventions.INFERENCE_SPAN
    for span in (root, *attempts):
        assert {k for k in _attributes(span) if not k.startswith("meterhouse.")} <= HTTP
    assert len(spans) == 5
    figure("\n".join(_tree(children, root)))


def test_no_content_reaches_any_log_metric_or_file(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> str:
        async with (
            ScriptedBackend() as first,
            ScriptedBackend() as second,
            open_house(tmp_path, store_url) as house,
        ):
            second.script = Script(word=" zebra")
            world = await _failover(house, first, second)
            first.script = second.script = Script(status=500)
            body = {"model": "chat", "messages": [{"role": "user", "content": SECRET}]}
            await house.ask(world.secret, **body)
            await house.ask(world.secret, "/v1/completions", model="chat", prompt=SECRET)
            await house.settled()
            await asyncio.sleep(0.3)
            metrics: str = house.data.telemetry.exposition().decode()
            return world.secret + "\n" + metrics

    secret, _, metrics = run(scenario()).partition("\n")
    log = (tmp_path / "log" / "access.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["status"] for line in lines} == {200, 502}
    assert "meterhouse_" in metrics
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in kept:
        content = path.read_bytes()
        for canary in (SECRET.encode(), b"canary", b"zebra", secret.encode()):
            assert canary not in content, path
    for canary in (SECRET, "zebra", secret):
        assert canary not in metrics
