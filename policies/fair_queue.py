"""Who is next at a backend that is full: by priority, then the team that has had the fewest tokens
for its weight.

Each team has a counter in each priority: what its requests there have been charged so far, which is
their tokens divided by its weight. The line with the lowest counter is served next, and is charged
for it, so that teams that wait at the same time get tokens in proportion to their weights, however
many requests each of them sends. Who comes new begins at the lowest counter of those that wait:
nobody saves up by staying away. Within a line the order is that of arrival. A higher priority
always goes first.

Charges are integers: thousandths of a weighted token at weight 1 (`charged`). Rounding takes less
than one of them off a request, so while all wait, and none has asked for more than M tokens at a
time, what two teams have been served, divided by their weights, differs by at most M over the
smaller of the two weights and a thousandth for each request.
"""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from operator import itemgetter
from typing import Final, Generic, TypeVar

T = TypeVar("T")

OUTPUT_WEIGHT: Final = 2  # an output token keeps a backend about as busy as two of input
MOST_LINES: Final = 4_096  # counters remembered; beyond it those that do not wait are forgotten

LEAST_WEIGHT: Final = 1
MOST_WEIGHT: Final = 1_000
UNITS: Final = 1_000  # what a weighted token is charged at weight 1: at the most still something

Line = tuple[int, str]  # priority, the higher the sooner; team
Claim = tuple[Line, int, int]  # its line, what it may cost in weighted tokens, its team's weight


def cost(input_tokens: int, output_tokens: int) -> int:
    """What a request is charged in weighted tokens."""
    return input_tokens + OUTPUT_WEIGHT * output_tokens


def charged(tokens: int, weight: int) -> int:
    """By how much so many weighted tokens move the counter of a team of this weight."""
    return tokens * UNITS // weight


class FairQueue(Generic[T]):
    """What waits for one backend, in one process. Items are compared by identity or equality.
    Charges are as `charged` has them.
    """

    __slots__ = ("_bands", "_counters", "_floors", "_length")

    def __init__(self) -> None:
        self._bands: dict[int, dict[str, OrderedDict[T, int]]] = {}  # items with their charge
        self._counters: dict[Line, int] = {}
        self._floors: dict[int, int] = {}  # by priority: where the last that was served began
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, line: Line, item: T, charge: int) -> None:
        """`item` waits at the end of its line; it will be charged about so much."""
        priority, team = line
        band = self._bands.setdefault(priority, {})
        if team not in band:
            self._counters[line] = self._start(line)
            band[team] = OrderedDict()
        band[team][item] = charge
        self._length += 1

    def remove(self, line: Line, item: T) -> bool:
        """It waits no more; answers whether it did."""
        waiting = self._bands.get(line[0], {}).get(line[1])
        if waiting is None or waiting.pop(item, None) is None:
            return False
        self._left(line)
        return True

    def first(self) -> Line | None:
        """The line whose oldest item is next: of equal ones the same in every process."""
        if not self._length:
            return None
        priority = max(self._bands)
        counters = self._counters
        team = min(self._bands[priority], key=lambda team: (counters[(priority, team)], team))
        return priority, team

    def pop(self) -> T:
        """The next one, charged. KeyError when nobody waits."""
        line = self.first()
        if line is None:
            raise KeyError("nobody waits")
        item, charge = self._bands[line[0]][line[1]].popitem(last=False)
        self._served(line, charge)
        self._left(line)
        return item

    def passed(self, line: Line, charge: int) -> None:
        """A request was served without waiting."""
        self._counters[line] = self._start(line)
        self._served(line, charge)
        if len(self._counters) > MOST_LINES:
            self._forget()

    def charge(self, line: Line, more: int) -> None:
        """A request of this line is charged so much more than was thought; below zero: less."""
        if line in self._counters:
            self._counters[line] = max(0, self._counters[line] + more)

    def learn(self, line: Line, counter: int) -> None:
        """What all workers together have counted."""
        self._counters[line] = counter

    def counter(self, line: Line) -> int:
        return self._counters.get(line, 0)

    def evicted_for(self, line: Line) -> tuple[Line, T] | None:
        """Who has to go if one more comes to `line` and there is no room: of the lowest priority,
        the newest of the longest line, if that is longer than its own would be. None: it itself.
        """
        lowest = min(self._bands, default=line[0])
        if line[0] < lowest or not self._length:
            return None
        band = self._bands[lowest]
        longest = max(band, key=lambda team: len(band[team]))
        if line[0] == lowest and len(band.get(line[1], ())) >= len(band[longest]) - 1:
            return None
        return (lowest, longest), next(reversed(band[longest]))

    def heads(self, most: int) -> list[tuple[int, int, T]]:
        """The first that would be served, in that order, each with its priority and counter."""
        found: list[tuple[int, int, T]] = []
        for priority in sorted(self._bands, reverse=True):
            starts: list[tuple[int, str, T]] = []
            for team, waiting in self._bands[priority].items():
                at = self._counters[(priority, team)]
                for item, charge in islice(waiting.items(), most):
                    starts.append((at, team, item))
                    at += charge
            starts.sort(key=itemgetter(0, 1))
            found += [(priority, at, item) for at, _, item in starts[: most - len(found)]]
            if len(found) >= most:
                break
        return found

    def lines(self) -> Iterable[Line]:
        """Those that somebody waits in."""
        return [(priority, team) for priority, band in self._bands.items() for team in band]

    def floors(self) -> list[tuple[int, int]]:
        """By priority, where one that comes new begins."""
        return [(priority, self._floor(priority)) for priority in {*self._floors, *self._bands}]

    def items(self) -> list[T]:
        """All that wait, in no order."""
        return [one for band in self._bands.values() for line in band.values() for one in line]

    def _start(self, line: Line) -> int:
        return max(self._counters.get(line, 0), self._floor(line[0]))

    def _floor(self, priority: int) -> int:
        band = self._bands.get(priority)
        if band:
            return min([self._counters[(priority, team)] for team in band])
        return self._floors.get(priority, 0)

    def _served(self, line: Line, charge: int) -> None:
        at = self._counters[line]
        self._floors[line[0]] = max(self._floors.get(line[0], 0), at)
        self._counters[line] = at + charge

    def _left(self, line: Line) -> None:
        self._length -= 1
        priority, team = line
        band = self._bands[priority]
        if not band[team]:
            del band[team]
            if not band:
                del self._bands[priority]

    def _forget(self) -> None:
        waiting = set(self.lines())
        self._counters = {line: at for line, at in self._counters.items() if line in waiting}
