"""What each data plane worker last said about itself: load, latency and breakers of its backends.

Latencies travel as bucket counts of the last minute, because counts of several workers add up and
percentiles do not.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.stores.redis.channel import Channels

KEY: Final = "mh:{house}:workers"  # HASH: worker -> msgpack of its Report
STALE_AFTER_US: Final = 10_000_000

Counts = dict[int, int]  # a bucket of policies.latency -> samples


class BackendReport(msgspec.Struct, frozen=True, kw_only=True):
    """One backend and model as one worker sees it."""

    backend_id: str
    upstream_model: str
    breaker: str  # closed | open | half_open
    in_flight: int
    in_flight_tokens: int
    ttft: Counts
    tpot: Counts
    total: Counts
    outcomes: Counts = {}  # health.SERVED, health.FAILED -> so many
    share: int = 1_000  # the rest as in policies.candidates.Live
    room: int | None = None
    rest_ms: int = 0
    waiting: int | None = None
    cache_permille: int | None = None
    others: dict[str, int | None] = {}  # by objectives.View, of what all workers have told
    ttft_ewma_us: int = 0


class DeskReport(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that takes only so many requests at a time, as one worker sees it."""

    backend_id: str
    slots: int  # that the worker has
    busy: int
    waiting: int
    longest_us: int  # how long the first of those waits already


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One worker at one moment. Its name is unique: host and number."""

    worker: str
    version: str
    at_us: int
    started_us: int
    revision: int  # of the configuration it serves with
    in_flight: int
    unsettled: int  # settlements that wait for the store
    backends: tuple[BackendReport, ...]
    desks: tuple[DeskReport, ...] = ()


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Report)


async def publish(channels: Channels, report: Report) -> None:
    """StoreUnavailable when the store does not take it."""
    await channels.house.ask("HSET", KEY, report.worker, _ENCODER.encode(report))


async def retire(channels: Channels, worker: str) -> None:
    """The worker has ended in good order; nobody need wonder where it is."""
    await channels.house.ask("HDEL", KEY, worker)


async def read(channels: Channels, now_us: int) -> Sequence[Report]:
    """The workers that have spoken lately, by name. Those long silent are forgotten on the way."""
    found = await channels.house.ask("HGETALL", KEY)
    names, reports = found[::2], [_decoded(packed) for packed in found[1::2]]
    silent = [
        name
        for name, report in zip(names, reports, strict=True)
        if report is None or report.at_us < now_us - 360 * STALE_AFTER_US
    ]
    if silent:
        await channels.house.ask("HDEL", KEY, *silent)
    fresh = [each for each in reports if each and each.at_us >= now_us - STALE_AFTER_US]
    return sorted(fresh, key=lambda report: report.worker)


def _decoded(packed: Any) -> Report | None:
    """None for what a newer release wrote in a form of its own."""
    try:
        return _DECODER.decode(packed)
    except msgspec.DecodeError:
        return None
