"""Percentiles of the last minute: six ten-second slots of logarithmic buckets.

Windowing matters more than the sketch: an estimator without one still reports yesterday's speed
minutes after a slowdown. A bucket is at most 1/32 of its value wide, so a percentile is within
1.6 % of a true sample. Windows merge by adding bucket counts; the caller gives the time, always.

What others have counted of the same thing stands beside a window: percentiles and samples speak of
all of it, and what travels to others is what was counted here.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Final

SLOTS: Final = 6
SLOT_US: Final = 10_000_000
MIN_SAMPLES: Final = 20  # under this a percentile would be an anecdote, so there is none

_SUB_BITS: Final = 5  # 32 buckets to an octave
_OCTAVE_BITS: Final = _SUB_BITS + 1
_EXACT: Final = 1 << _OCTAVE_BITS  # values below have a bucket of their own
_MAX_US: Final = 1 << 40  # twelve days: a bound for a broken clock, not for a request

Counts = dict[int, int]  # bucket -> samples


def bucket_of(value_us: int) -> int:
    """The bucket of a duration. Monotonic; negative durations count as 0."""
    if value_us < _EXACT:
        return value_us if value_us > 0 else 0
    if value_us > _MAX_US:
        value_us = _MAX_US
    shift = value_us.bit_length() - _OCTAVE_BITS
    return (shift << _SUB_BITS) + (value_us >> shift)


def middle_of(bucket: int) -> int:
    """The duration in the middle of a bucket, in microseconds."""
    if bucket < _EXACT:
        return bucket
    shift = (bucket >> _SUB_BITS) - 1
    low = (bucket - (shift << _SUB_BITS)) << shift
    return low + (1 << shift >> 1)


class LatencyWindow:
    """Durations of the last 50 to 60 seconds, in microseconds. Time must not run backwards far:
    a sample older than the window is dropped.
    """

    __slots__ = ("_beside", "_counts", "_current", "_epochs", "_memo", "_seen", "_slot")

    def __init__(self) -> None:
        self._epochs = [-1] * SLOTS
        self._counts: list[Counts] = [{} for _ in range(SLOTS)]
        self._slot = -1  # the slot number `_current` belongs to
        self._current: Counts = self._counts[0]
        self._seen = 0  # samples ever added: tells when a remembered percentile is stale
        self._memo: dict[tuple[int, int], tuple[int, int, int | None]] = {}
        self._beside: dict[int, Counts] = {}

    def add(self, value_us: int, now_us: int) -> None:
        """Count one duration."""
        slot = now_us // SLOT_US
        if slot != self._slot:
            self._turn(slot)
        if _EXACT <= value_us <= _MAX_US:  # bucket_of in line: this runs for every request
            shift = value_us.bit_length() - _OCTAVE_BITS
            bucket = (shift << _SUB_BITS) + (value_us >> shift)
        else:
            bucket = bucket_of(value_us)
        counts = self._current
        counts[bucket] = counts.get(bucket, 0) + 1
        self._seen += 1

    def samples(self, now_us: int) -> int:
        """How many durations the window holds, those of others included."""
        return sum(sum(counts.values()) for counts in self._all(now_us))

    def counts(self, now_us: int, newest: int = SLOTS) -> Counts:
        """Samples by bucket in so many newest slots, those of others included."""
        merged: Counts = {}
        for counts in self._all(now_us, newest):
            for bucket, count in counts.items():
                merged[bucket] = merged.get(bucket, 0) + count
        return merged

    def percentile(self, p: int, now_us: int, newest: int = SLOTS) -> int | None:
        """The p-th percentile (1 to 100) of so many newest slots, the one that is being filled
        among them; None under MIN_SAMPLES samples.

        Remembered until the slots turn or the window has grown by 1/64, so that asking on every
        request is cheap; what it misses is at most that share of the samples.
        """
        slot = now_us // SLOT_US
        memo = self._memo.get((p, newest))
        if memo is not None and memo[0] == slot and self._seen <= memo[1]:
            return memo[2]
        merged = self.counts(now_us, newest)
        total = sum(merged.values())
        value = _percentile(merged, total, p) if total >= MIN_SAMPLES else None
        self._memo[(p, newest)] = (slot, self._seen + (total >> 6), value)
        return value

    def beside(self, slots: Mapping[int, Counts], now_us: int) -> None:
        """What all others together have counted, by the same clock, of each of these slots: instead
        of what they were said to have counted there before.
        """
        oldest = now_us // SLOT_US - SLOTS
        known = {epoch: counts for epoch, counts in self._beside.items() if epoch > oldest}
        self._beside = known | {epoch: counts for epoch, counts in slots.items() if counts}
        self._memo.clear()

    def _all(self, now_us: int, newest: int = SLOTS) -> Iterator[Counts]:
        last = now_us // SLOT_US
        for epoch, counts in zip(self._epochs, self._counts, strict=True):
            if last - newest < epoch <= last:
                yield counts
        if self._beside:
            for epoch, counts in self._beside.items():
                if last - newest < epoch <= last:
                    yield counts

    def slots(self, now_us: int) -> dict[int, Counts]:
        """The live slots by number, as counted here: what travels to be merged elsewhere."""
        newest = now_us // SLOT_US
        return {
            epoch: counts
            for epoch, counts in zip(self._epochs, self._counts, strict=True)
            if newest - SLOTS < epoch <= newest and counts
        }

    def merge(self, slots: Mapping[int, Mapping[int, int]], now_us: int) -> None:
        """Add another window's slots, counted by the same clock; what is over is dropped."""
        newest = now_us // SLOT_US
        for epoch, counts in slots.items():
            if not newest - SLOTS < epoch <= newest:
                continue
            into = self._open(epoch)
            for bucket, count in counts.items():
                into[bucket] = into.get(bucket, 0) + count
                self._seen += count

    def _turn(self, slot: int) -> None:
        self._current = self._open(slot)
        self._slot = slot

    def _open(self, slot: int) -> Counts:
        at = slot % SLOTS
        if self._epochs[at] > slot:
            return {}  # the window has moved on: the sample is counted nowhere
        if self._epochs[at] < slot:
            self._epochs[at] = slot
            self._counts[at] = {}
        return self._counts[at]


def percentile_of(counts: Mapping[int, int], p: int) -> int | None:
    """The p-th percentile of counts by bucket, however few; None of nothing."""
    total = sum(counts.values())
    return _percentile(dict(counts), total, p) if total else None


def _percentile(counts: Counts, total: int, p: int) -> int:
    """Nearest rank: the smallest bucket that p per cent of the samples do not exceed."""
    rank = -(-total * p // 100)
    buckets = sorted(counts)
    reached = itertools.accumulate(counts[bucket] for bucket in buckets)
    return middle_of(buckets[next(at for at, upto in enumerate(reached) if upto >= rank)])
