"""What all workers together see of the backends, as `route` takes it: for whoever explains a
decision that was not made. A worker decides by what it sees itself, windows apart, which it shares;
where workers differ, the one that thinks worst of a backend is believed.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway import clock
from gateway.stores.redis import workers
from gateway.stores.redis.channel import Channels, StoreUnavailable
from gateway.stores.redis.workers import BackendReport, Counts, Report
from policies.candidates import Live
from policies.latency import SLOT_US, LatencyWindow

Key = tuple[str, str]  # backend_id, upstream_model

_WITHIN_S: Final = 2.0  # somebody waits for the answer
_WORST_FIRST: Final = ("open", "half_open", "closed")


class LiveFacts(msgspec.Struct, frozen=True):
    """`live` is None where nothing can be known, and `unknown` says why. `breakers` are in words,
    of every backend and model that a worker has tried.
    """

    live: Mapping[Key, Live] | None
    breakers: Mapping[Key, str] = {}
    unknown: str | None = None
    as_of_us: int | None = None  # when the eldest of what the workers say was said

    def plain(self) -> dict[str, Any]:
        """For the answer."""
        as_of = None if self.as_of_us is None else clock.rfc3339(self.as_of_us)
        return {"known": self.live is not None, "as_of": as_of, "why_not": self.unknown}


async def read(channels: Channels | None) -> LiveFacts:
    """What the workers last told the store. Never raises for want of it."""
    if channels is None:
        return LiveFacts(None, unknown="this process has no quota store to read it from")
    try:
        async with asyncio.timeout(_WITHIN_S):
            reports = await workers.read(channels, clock.now_us())
    except (StoreUnavailable, TimeoutError):
        return LiveFacts(None, unknown="the quota store does not answer")
    if not reports:
        return LiveFacts(None, unknown="no data plane worker has told of itself in ten seconds")
    return merged(reports)


def merged(reports: Sequence[Report]) -> LiveFacts:
    """All of at least one worker's."""
    views: dict[Key, list[BackendReport]] = {}
    for report in reports:
        for each in report.backends:
            views.setdefault((each.backend_id, each.upstream_model), []).append(each)
    breakers = {key: _worst(each.breaker for each in seen) for key, seen in views.items()}
    live = {key: _live(seen, breakers[key]) for key, seen in views.items()}
    return LiveFacts(live, breakers, as_of_us=min(report.at_us for report in reports))


def _worst(states: Iterable[str]) -> str:
    found = set(states)
    return next((state for state in _WORST_FIRST if state in found), _WORST_FIRST[-1])


def _live(views: Sequence[BackendReport], breaker: str) -> Live:
    ttft, tpot, total = (
        _window(getattr(view, name) for view in views) for name in ("ttft", "tpot", "total")
    )
    rooms = [view.room for view in views]
    return Live(
        available=breaker != "open",
        in_flight=sum(view.in_flight for view in views),
        in_flight_tokens=sum(view.in_flight_tokens for view in views),
        ttft_p95_us=_p95(ttft),
        tpot_p95_us=_p95(tpot),
        total_p95_us=_p95(total),
        others=_others(views),
        samples=ttft.samples(SLOT_US - 1),
        ttft_ewma_us=max(view.ttft_ewma_us for view in views),
        share=min(view.share for view in views),
        room=None if None in rooms else sum(room for room in rooms if room is not None),
        rest_ms=max(view.rest_ms for view in views),
        waiting=_most(view.waiting for view in views),
        cache_permille=_most(view.cache_permille for view in views),
    )


def _others(views: Sequence[BackendReport]) -> dict[str, int | None]:
    names = dict.fromkeys(name for view in views for name in view.others)
    return {name: _most(view.others.get(name) for view in views) for name in names}


def _window(parts: Iterable[Counts]) -> LatencyWindow:
    window = LatencyWindow()
    for counts in parts:
        window.merge({0: counts}, SLOT_US - 1)
    return window


def _p95(window: LatencyWindow) -> int | None:
    return window.percentile(95, SLOT_US - 1)


def _most(said: Iterable[int | None]) -> int | None:
    return max((each for each in said if each is not None), default=None)
