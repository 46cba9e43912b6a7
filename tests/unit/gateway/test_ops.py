"""gateway.ops"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from gateway.ops import Readiness, probes, scrape
from gateway.telemetry.service import Telemetry, TelemetrySettings
from tests.unit.gateway.telemetry.records import answered


class Part:
    """What the probes ask; a test says what it answers."""

    def __init__(self) -> None:
        self.answer = Readiness(ready=True, checks={"store": "ok"})

    def __call__(self) -> Readiness:
        return self.answer


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[Telemetry]:
    house = Telemetry(TelemetrySettings(run_dir=tmp_path, process="data-0"))
    house.start()
    yield house
    house.close()


@pytest.fixture
def part() -> Part:
    return Part()


@pytest.fixture
def client(part: Part, telemetry: Telemetry) -> Iterator[TestClient[Litestar]]:
    app = Litestar([*probes(part), scrape(telemetry)], openapi_config=None)
    with TestClient(app) as client:
        yield client


def test_a_process_that_turns_is_healthy_whatever_else_is_wrong(
    client: TestClient[Litestar], part: Part
) -> None:
    part.answer = Readiness(ready=False, checks={"store": "down"})

    answer = client.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_process_that_should_get_no_work_says_so(
    client: TestClient[Litestar], part: Part
) -> None:
    assert client.get("/readyz").status_code == 200

    part.answer = Readiness(ready=False, checks={"process": "draining"})
    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": {"process": "draining"}}


def test_a_scraper_gets_text_of_the_version_it_knows(
    client: TestClient[Litestar], telemetry: Telemetry
) -> None:
    telemetry.finish(answered())
    telemetry.close()

    answer = client.get("/metrics")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "http_server_request_duration_seconds_count{" in answer.text


def test_probes_answer_nothing_but_get(client: TestClient[Litestar]) -> None:
    assert client.post("/healthz").status_code == 405
