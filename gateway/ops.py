"""The probes of an orchestrator and the metrics of a scraper: /healthz, /readyz, /metrics."""

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from gateway.telemetry import prometheus
from gateway.telemetry.service import Telemetry


class Readiness(msgspec.Struct, frozen=True):
    """Whether to send requests here. `checks` says why not, in words without addresses."""

    ready: bool
    checks: dict[str, str]  # a part and `ok`, `draining`, or what is wrong with it


def probes(readiness: Callable[[], Readiness]) -> list[HTTPRouteHandler]:
    """`/healthz` answers as long as the process turns; `/readyz` 503 while it should get no work.

    `readiness` is asked on the event loop and must answer from what is known already.
    """

    @get("/healthz", sync_to_thread=False, include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @get("/readyz", sync_to_thread=False, include_in_schema=False)
    def readyz() -> Response[Readiness]:
        answer = readiness()
        return Response(answer, status_code=200 if answer.ready else 503)

    return [healthz, readyz]


def scrape(telemetry: Telemetry) -> HTTPRouteHandler:
    """`/metrics` over all processes of this home; for the admin listener only."""

    @get("/metrics", sync_to_thread=True, include_in_schema=False)
    def metrics() -> Response[Any]:
        return Response(telemetry.exposition(), media_type=prometheus.CONTENT_TYPE)

    return metrics
