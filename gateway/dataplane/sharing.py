"""Windows merged through the store: every few seconds a worker tells what it measured of each
backend and hears what the others did, so that all rank by the measurements of all.

Nothing on the way of a request waits for it. While the store is away a worker ranks by its own
windows, and what it has heard fades with the minute.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

from gateway import clock
from gateway.backends.health import RINGS, Backends, Key
from gateway.stores.redis import engines, rings
from gateway.stores.redis.channel import Channels, StoreUnavailable
from gateway.stores.redis.rings import Rings, SeatRings, Slots
from policies.latency import SLOT_US, SLOTS, Counts

EVERY_S: Final = 2.0
_AT_EASE: Final = 16  # workers; with more of them each speaks less often, for all read all
MOST_SEATS: Final = 256  # told of by one worker: its busiest; a bound on what the store carries
_JITTER_US: Final = 500_000  # of wall clocks: equal slots must not count as neighbours
_NEWEST: Final = 2  # slots that are told: the one being filled, and the one before for its end


class Heard:
    """What the other workers have said, by slot: a word about a slot replaces the one before."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._said: dict[int, dict[str, dict[Key, tuple[Counts, ...]]]] = {}

    def take(self, said: Sequence[Rings], now_us: int, wall_us: int) -> None:
        """`now_us` and `wall_us`: this instant on the clock of the windows, and on the wall's."""
        slot_now = now_us // SLOT_US
        self._said = {slot: by for slot, by in self._said.items() if slot > slot_now - SLOTS}
        touched = set()
        for each in said:
            for seat in each.seats:
                touched |= self._note(each.worker, seat, now_us - wall_us, slot_now)
        merged: dict[Key, list[dict[int, Counts]]] = {}
        for slot in touched:
            _add(merged, slot, self._said[slot])
        for key, windows in merged.items():
            self._backends.beside(key, windows, now_us)

    def _note(self, worker: str, seat: SeatRings, offset_us: int, slot_now: int) -> set[int]:
        key, touched = (seat.backend_id, seat.upstream_model), set()
        for at, slots in enumerate(seat.rings[: len(RINGS)]):
            for began_us, counts in slots.items():
                # The slot here in which it began; a clock that runs ahead does not make it one
                # that has not begun.
                slot = min((began_us + offset_us + _JITTER_US) // SLOT_US, slot_now)
                if slot <= slot_now - SLOTS:
                    continue
                seats = self._said.setdefault(slot, {}).setdefault(worker, {})
                known = seats.setdefault(key, tuple({} for _ in RINGS))
                seats[key] = (*known[:at], counts, *known[at + 1 :])
                touched.add(slot)
        return touched


def _add(
    merged: dict[Key, list[dict[int, Counts]]],
    slot: int,
    said: Mapping[str, Mapping[Key, tuple[Counts, ...]]],
) -> None:
    for seats in said.values():
        for key, rings_of in seats.items():
            windows = merged.setdefault(key, [{} for _ in RINGS])
            for window, counts in zip(windows, rings_of, strict=True):
                into = window.setdefault(slot, {})
                for bucket, count in counts.items():
                    into[bucket] = into.get(bucket, 0) + count


def own(backends: Backends, worker: str, now_us: int, wall_us: int) -> Rings:
    """What this worker has measured, of its busiest seats."""
    oldest = now_us // SLOT_US - _NEWEST
    found = []
    for (backend_id, model), seat in backends.seats().items():
        slots = [
            {slot: counts for slot, counts in window.slots(now_us).items() if slot > oldest}
            for window in seat.rings()
        ]
        size = sum(sum(counts.values()) for window in slots for counts in window.values())
        if size:
            told: tuple[Slots, ...] = tuple(
                {slot * SLOT_US + wall_us - now_us: counts for slot, counts in window.items()}
                for window in slots
            )
            found.append((size, SeatRings(backend_id, model, told)))
    found.sort(key=lambda one: -one[0])
    return Rings(worker, wall_us, tuple(seat for _, seat in found[:MOST_SEATS]))


async def keep_sharing(
    channels: Channels, worker: str, backends: Backends, every_s: float = EVERY_S
) -> None:
    """Until cancelled; then the worker takes its name off."""
    heard = Heard(backends)
    workers = 1
    try:
        while True:
            await asyncio.sleep(every_s * max(1.0, workers / _AT_EASE))
            mine = own(backends, worker, clock.monotonic_us(), clock.now_us())
            with contextlib.suppress(StoreUnavailable):
                said = await rings.exchange(channels, mine)
                heard.take(said, clock.monotonic_us(), clock.now_us())
                backends.say(await engines.read(channels), clock.monotonic_us())
                workers = len(said) + 1
    finally:
        with contextlib.suppress(StoreUnavailable):
            await rings.retire(channels, worker)
