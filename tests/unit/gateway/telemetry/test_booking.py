"""gateway.telemetry.booking"""

import threading

from hypothesis import given
from hypothesis import strategies as st

from billing.meters import Meters, Provenance
from gateway.telemetry.booking import Booking
from gateway.telemetry.metrics import FamilyValues, Registry
from gateway.telemetry.names import Convention
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.snapshots import merged
from tests.unit.gateway.telemetry.readings import booked, count, none_lost
from tests.unit.gateway.telemetry.records import AT_US, answered, attempt, refused, streamed

MICROS = st.integers(0, 200_000_000)
TOKENS = st.integers(0, 300_000)
METERS = st.builds(Meters, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)


@st.composite
def records(draw: st.DrawFn) -> RequestRecord:
    ended_us = AT_US + 2_000 + draw(MICROS)
    tries = [
        attempt(
            started_us=AT_US + 1_000,
            finished_us=ended_us,
            first_byte_us=draw(st.sampled_from((0, AT_US + 1_500))),
            status=draw(st.sampled_from((0, 200, 503))),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    made = draw(st.sampled_from((answered, streamed, refused)))
    return made(
        finished_us=ended_us + draw(MICROS),
        overhead_us=draw(MICROS),
        admitted_us=draw(st.sampled_from((0, AT_US + 900))),
        attempts=() if made is refused else tuple(tries),
        operation=draw(st.sampled_from(("chat", "embeddings", ""))),
        ttft_us=draw(st.integers(-1, 5_000)),
        chunks=draw(st.integers(0, 30)),
        meters=draw(METERS),
        reasoning=draw(TOKENS),
        provenance=draw(st.sampled_from((None, *Provenance))),
        charge_picos=draw(st.integers(0, 10**15)),
        rejected=draw(st.sampled_from(((), (("residency", 2), ("context", 1))))),
    )


@given(st.lists(records(), max_size=12))
def test_requests_booked_together_count_as_booked_one_by_one(finished: list[RequestRecord]) -> None:
    at_once = booked(*finished * 20)
    registry = Registry()
    booking = Booking(registry, Convention.BOTH, none_lost)
    for record in finished * 20:
        booking.book(record)
        booking.catch_up()

    assert figures(at_once) == figures(registry)


def test_a_request_is_in_the_figures_as_soon_as_they_are_read() -> None:
    registry = booked(answered())

    assert count(registry, "http.server.request.duration") == 1
    assert count(registry, "http.server.request.duration") == 1


def test_whoever_reads_on_another_thread_loses_nothing() -> None:
    registry = Registry()
    booking = Booking(registry, Convention.BOTH, none_lost)
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            registry.values()

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20_000):
        booking.book(answered())
    over.set()
    reader.join()

    assert count(registry, "http.server.request.duration") == 20_000


def figures(registry: Registry) -> list[FamilyValues]:
    return [
        FamilyValues(values.family, sorted(values.rows)) for values in merged(registry.values())
    ]
