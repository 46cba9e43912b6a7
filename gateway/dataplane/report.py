"""What this worker says of itself once a second: for the status page and for whoever explains a
decision; nobody decides by it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from gateway import __version__, clock
from gateway.backends.health import Backends, Seat
from gateway.dataplane.desk import Desk
from gateway.dataplane.request import DataPlane
from gateway.dataplane.settle import Settler
from gateway.stores.redis import workers
from gateway.stores.redis.channel import Channels, StoreUnavailable
from policies.latency import LatencyWindow
from policies.objectives import Objective

REPORT_EVERY_S: Final = 1.0


async def keep_reporting(
    channels: Channels, worker: str, plane: DataPlane, settler: Settler
) -> None:
    """Until cancelled; then the worker takes its name off the board."""
    started_us = clock.now_us()

    def report() -> workers.Report:
        return workers.Report(
            worker=worker,
            version=__version__,
            at_us=clock.now_us(),
            started_us=started_us,
            revision=plane.snapshot.revision,
            in_flight=len(plane.in_flight),
            unsettled=settler.waiting,
            backends=_backends(plane.backends),
            desks=tuple(map(_desk, plane.turns.desks)),
        )

    try:
        await _publish(channels, report)
    finally:
        with contextlib.suppress(StoreUnavailable):
            await workers.retire(channels, worker)


async def _publish(channels: Channels, report: Callable[[], workers.Report]) -> None:
    while True:
        with contextlib.suppress(StoreUnavailable):
            await workers.publish(channels, report())
        await asyncio.sleep(REPORT_EVERY_S)


def _backends(backends: Backends) -> tuple[workers.BackendReport, ...]:
    now_us = clock.monotonic_us()
    watched = backends.watched(now_us)
    return tuple(
        _backend(backend_id, upstream_model, seat, watched, now_us)
        for (backend_id, upstream_model), seat in backends.seats().items()
    )


def _backend(
    backend_id: str, upstream_model: str, seat: Seat, watched: Sequence[Objective], now_us: int
) -> workers.BackendReport:
    return workers.BackendReport(
        backend_id=backend_id,
        upstream_model=upstream_model,
        breaker=seat.breaker_state(now_us).value,
        in_flight=seat.live.in_flight,
        in_flight_tokens=seat.live.in_flight_tokens,
        ttft=_counts(seat.ttft, now_us),
        tpot=_counts(seat.tpot, now_us),
        total=_counts(seat.total, now_us),
        outcomes=_counts(seat.outcomes, now_us),
        share=seat.live.share,
        room=seat.live.room,
        rest_ms=seat.live.rest_ms,
        waiting=seat.live.waiting,
        cache_permille=seat.live.cache_permille,
        others={each.view: seat.measured(each, now_us) for each in watched},
        ttft_ewma_us=seat.live.ttft_ewma_us,
    )


def _desk(desk: Desk) -> workers.DeskReport:
    now_us = clock.monotonic_us()
    return workers.DeskReport(
        backend_id=desk.backend_id,
        slots=desk.slots,
        busy=desk.busy,
        waiting=len(desk.queue),
        longest_us=max((now_us - each.since_us for each in desk.queue.items()), default=0),
    )


def _counts(window: LatencyWindow, now_us: int) -> dict[int, int]:
    """Bucket counts of the last minute, all slots together, as this worker counted them."""
    counts: dict[int, int] = {}
    for slot in window.slots(now_us).values():
        for bucket, samples in slot.items():
            counts[bucket] = counts.get(bucket, 0) + samples
    return counts
