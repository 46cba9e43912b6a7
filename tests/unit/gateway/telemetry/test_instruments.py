"""gateway.telemetry.instruments"""

from billing.meters import Meters, Provenance
from gateway.telemetry.instruments import attempt_error
from tests.unit.gateway.telemetry.readings import booked, count, total
from tests.unit.gateway.telemetry.records import answered, attempt, refused


def test_every_request_is_an_http_request_by_route_and_status() -> None:
    registry = booked(answered(), refused(), refused())

    name = "http.server.request.duration"
    assert count(registry, name, http__response__status_code="200") == 1
    assert count(registry, name, http__response__status_code="429") == 2
    assert total(registry, name, http__response__status_code="429") == 800


def test_refusals_are_counted_by_their_code() -> None:
    registry = booked(answered(), refused(), refused(code="rate_limit_exceeded"))

    name = "meterhouse.refusals"
    assert total(registry, name) == 2
    assert total(registry, name, meterhouse__refusal__code="rate_limit_exceeded") == 1


def test_disconnects_and_cuts_are_told_by_who_ended_what() -> None:
    registry = booked(answered(status=499, end_by="client", end_phase="stream"), answered())

    name = "meterhouse.request.ends"
    assert total(registry, name, meterhouse__end__by="client", meterhouse__end__phase="stream") == 1


def test_tokens_are_booked_by_disjoint_meter_team_and_certainty() -> None:
    meters = Meters(input=5, cache_read=4, cache_write_5m=2, cache_write_1h=1, output=9)
    registry = booked(answered(meters=meters, provenance=Provenance.ESTIMATED))

    name, labels = "meterhouse.usage.tokens", {"meterhouse__team__id": "team_1"}
    booked_by_type = {
        kind: total(registry, name, meterhouse__usage__type=kind, **labels)
        for kind in ("input", "cache_read", "cache_write", "output")
    }
    assert booked_by_type == {"input": 5, "cache_read": 4, "cache_write": 3, "output": 9}
    assert total(registry, name, meterhouse__usage__provenance="estimated") == meters.total


def test_charges_are_kept_in_whole_nanos() -> None:
    registry = booked(answered(charge_picos=2_500_000_999), answered(charge_picos=1_000))

    assert total(registry, "meterhouse.usage.charge", meterhouse__currency="USD") == 2_500_001


def test_each_try_counts_and_those_after_the_first_are_retries() -> None:
    down = attempt(backend_id="be_us", status=0, error_type="connect_failed", first_byte_us=0)
    registry = booked(answered(attempts=(down, down, attempt())))

    name = "meterhouse.backend.attempts"
    assert total(registry, name, meterhouse__backend__id="be_us") == 2
    assert total(registry, name, error__type="connect_failed") == 2
    assert total(registry, name, meterhouse__backend__id="be_eu", error__type="") == 1
    assert total(registry, "meterhouse.retries") == 2
    assert count(registry, "http.client.request.duration") == 3
    assert count(registry, "meterhouse.backend.time_to_first_byte") == 1


def test_a_try_beside_a_slow_one_is_a_hedge_and_no_retry() -> None:
    beside = attempt(number=1, beside=True)
    registry = booked(
        answered(attempts=(attempt(), beside)),
        answered(attempts=(beside, attempt())),
        answered(attempts=(attempt(), attempt(number=1), attempt(number=2, beside=True))),
    )

    assert total(registry, "meterhouse.hedges", meterhouse__hedge__won="true") == 2
    assert total(registry, "meterhouse.hedges", meterhouse__hedge__won="false") == 1
    assert total(registry, "meterhouse.retries") == 1


def test_our_own_time_is_apart_from_the_backends() -> None:
    registry = booked(answered(), refused())

    assert total(registry, "meterhouse.overhead.duration") == 2_000
    assert total(registry, "meterhouse.admission.duration") == 400


def test_reasons_against_candidates_are_counted() -> None:
    registry = booked(refused(rejected=(("residency", 2), ("breaker_open", 1))))

    assert total(registry, "meterhouse.candidates.rejected", meterhouse__reason="residency") == 2


def test_an_error_of_a_try_is_its_recorded_type_or_else_its_status() -> None:
    assert attempt_error(attempt()) == ""
    assert attempt_error(attempt(status=503)) == "503"
    assert attempt_error(attempt(status=200, error_type="stream_truncated")) == "stream_truncated"


def test_many_kinds_of_requests_lose_no_count() -> None:
    registry = booked(*(answered(team_id=f"team_{n % 4500}") for n in range(5000)))

    name = "meterhouse.usage.tokens"
    assert total(registry, name, meterhouse__usage__type="output") >= 1
    assert total(registry, name) == 5000 * (30 + 70 + 41)
