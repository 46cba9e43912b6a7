"""Counters and histograms of one process, cheap enough for every request.

A series is resolved once and kept by whoever records into it; recording is then a list element
changed. Values are integers. Every family is bounded: past its limit, label values become `other`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

COUNTER: Final = "counter"
HISTOGRAM: Final = "histogram"
GAUGE_SUM: Final = "gauge_sum"  # over processes: added up
GAUGE_MAX: Final = "gauge_max"  # over processes: the greatest
OTHER: Final = "other"
SERIES_LIMIT: Final = 2000

Labels: TypeAlias = tuple[str, ...]
Row: TypeAlias = tuple[Labels, list[int]]
Reading: TypeAlias = int | Mapping[Labels, int]


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What a metric is. `names` are all it is shown under; values are divided by `divisor`."""

    names: tuple[str, ...]
    kind: str
    help: str
    unit: str = ""  # UCUM, as OpenTelemetry writes it: s, By, {token}
    labels: Labels = ()
    bounds: tuple[int, ...] = ()  # histograms: inclusive upper edges, undivided
    divisor: int = 1


class FamilyValues(msgspec.Struct, frozen=True):
    """A family and its series. A counter or gauge row has one cell; a histogram row has the sum and
    then one cell a bucket, the last one for what exceeds every edge.
    """

    family: Family
    rows: list[Row]


class Count:
    """One series of a counter."""

    __slots__ = ("_cells",)

    def __init__(self, cells: list[int]) -> None:
        self._cells = cells

    def inc(self, by: int = 1) -> None:
        """`by` is never negative; counters do not go back."""
        self._cells[0] += by


class Distribution:
    """One series of a histogram."""

    __slots__ = ("_bounds", "_cells")

    def __init__(self, bounds: tuple[int, ...], cells: list[int]) -> None:
        self._bounds = bounds
        self._cells = cells

    def observe(self, value: int) -> None:
        cells = self._cells
        cells[0] += value
        cells[bisect_left(self._bounds, value) + 1] += 1

    def observe_all(self, values: list[int]) -> None:
        """As `observe` with each, for a fraction of its price. Sorts the list."""
        cells, many = self._cells, len(values)
        cells[0] += sum(values)
        values.sort()
        below = 0
        for place, edge in enumerate(self._bounds, 1):
            if below == many:
                return
            upto = bisect_right(values, edge, below)
            cells[place] += upto - below
            below = upto
        cells[-1] += many - below

    def observe_times(self, value: int, times: int) -> None:
        """The same value observed so many times; 0 times leaves no trace."""
        cells = self._cells
        cells[0] += value * times
        cells[bisect_left(self._bounds, value) + 1] += times


class _Series:
    """The rows of one family. Rows are only ever added, so another thread may read them."""

    def __init__(self, family: Family, limit: int) -> None:
        self.family = family
        self.rows: list[Row] = []
        self._limit = limit
        self._cells: dict[Labels, list[int]] = {}

    def cells(self, labels: Labels) -> list[int]:
        found = self._cells.get(labels)
        if found is None:
            if len(labels) != len(self.family.labels):
                raise ValueError(f"{self.family.names[0]} has labels {self.family.labels}")
            if len(self._cells) >= self._limit:
                labels = (OTHER,) * len(labels)
                found = self._cells.get(labels)
        if found is None:
            width = len(self.family.bounds) + 2 if self.family.kind == HISTOGRAM else 1
            found = self._cells[labels] = [0] * width
            self.rows.append((labels, found))
        return found


class Counter:
    def __init__(self, family: Family, limit: int = SERIES_LIMIT) -> None:
        self.series = _Series(family, limit)

    def child(self, *labels: str) -> Count:
        return Count(self.series.cells(labels))


class Histogram:
    def __init__(self, family: Family, limit: int = SERIES_LIMIT) -> None:
        self.series = _Series(family, limit)

    def child(self, *labels: str) -> Distribution:
        return Distribution(self.series.family.bounds, self.series.cells(labels))


class Registry:
    """All families of a process, in the order in which they were declared."""

    def __init__(self) -> None:
        self._series: list[_Series] = []
        self._gauges: list[tuple[Family, Callable[[], Reading]]] = []
        self._labels: dict[str, Labels] = {}
        self._before_reading: list[Callable[[], None]] = []

    def counter(self, family: Family) -> Counter:
        counter = Counter(family)
        self._declare(family)
        self._series.append(counter.series)
        return counter

    def histogram(self, family: Family) -> Histogram:
        histogram = Histogram(family)
        self._declare(family)
        self._series.append(histogram.series)
        return histogram

    def gauge(self, family: Family, read: Callable[[], Reading]) -> None:
        self._declare(family)
        self._gauges.append((family, read))

    def before_reading(self, catch_up: Callable[[], None]) -> None:
        """For whoever keeps figures back for a while: called by the thread that reads."""
        self._before_reading.append(catch_up)

    def values(self) -> list[FamilyValues]:
        """Every family as it is now. The cells are the live ones: encode or copy them at once."""
        for catch_up in self._before_reading:
            catch_up()
        live = [FamilyValues(series.family, series.rows) for series in self._series]
        return live + [FamilyValues(family, _read(read)) for family, read in self._gauges]

    def _declare(self, family: Family) -> None:
        for name in family.names:
            if self._labels.setdefault(name, family.labels) != family.labels:
                raise ValueError(f"the metric {name} is declared twice, with other labels")


def _read(read: Callable[[], Reading]) -> list[Row]:
    """A gauge that fails shows nothing: the figures of one part must not hide all others."""
    try:
        reading = read()
        if isinstance(reading, Mapping):
            return [(labels, [int(value)]) for labels, value in reading.items()]
        return [((), [int(reading)])]
    except Exception:  # noqa: BLE001 - see above; the reader is someone else's code
        return []
