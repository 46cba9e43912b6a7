"""Simulated tenants, and how often the interval of a forecast holds what they come to spend.

`python -m tests.forecasting` prints the table: our forecast against a run rate with bootstrapped
days and a seasonal naive one with bootstrapped residuals, each with an interval of 80 %.
"""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from billing.forecast import forecast

PICOS = 10**12
_DRAWS = 400
Interval = tuple[float, float, float]
Method = Callable[[list[float], int, random.Random], Interval]


class Cell(NamedTuple):
    """So many days of history, so many ahead; the level jumps on day `step`."""

    history: int
    ahead: int
    step: int | None = None

    def __str__(self) -> str:
        jump = "" if self.step is None else ", step in history"
        return f"{self.history} d, {self.ahead} d{jump}"


CELLS = (
    Cell(7, 23), Cell(14, 16), Cell(28, 16), Cell(56, 16), Cell(28, 16, 12), Cell(7, 23, 3)
)  # fmt: skip


class Score(NamedTuple):
    covered: float  # of all tenants, the share whose spending was in the interval
    off: float  # mean absolute error of the middle, of what was spent


def tenant(draw: random.Random, days: int, step: int | None) -> list[float]:
    """Daily spending: a week's pattern, growth, noise that lasts, perhaps a jump."""
    week = [draw.gauss(0, 0.25) for _ in range(5)] + [draw.gauss(-1, 0.4) for _ in range(2)]
    level, growth = draw.uniform(1, 6), draw.gauss(0, 0.01)
    lasting, spread = draw.uniform(0.2, 0.6), draw.uniform(0.1, 0.3)
    jump = draw.choice([-1, 1]) * draw.uniform(0.5, 1.2)
    noise, found = 0.0, []
    for day in range(days):
        noise = lasting * noise + draw.gauss(0, spread)
        jumped = jump if step is not None and day >= step else 0
        found.append(math.exp(level + week[day % 7] + growth * day + noise + jumped))
    return found


def ours(history: list[float], ahead: int, _draw: random.Random) -> Interval:
    days = [(day % 7, 10**6) for day in range(len(history), len(history) + ahead)]
    found = forecast([int(each * PICOS) for each in history], 0, days, 0)
    if found is None:
        raise AssertionError("no forecast")
    return found.low_picos / PICOS, found.middle_picos / PICOS, found.high_picos / PICOS


def run_rate(history: list[float], ahead: int, draw: random.Random) -> Interval:
    return _interval(sorted(sum(draw.choice(history) for _ in range(ahead)) for _ in range(_DRAWS)))


def seasonal_naive(history: list[float], ahead: int, draw: random.Random) -> Interval:
    last, mean = sum(history[-7:][day % 7] for day in range(ahead)), sum(history) / len(history)
    residuals = [now - then for then, now in zip(history, history[7:], strict=False)]
    residuals = residuals or [each - mean for each in history]
    return _interval(
        sorted(last + sum(draw.choice(residuals) for _ in range(ahead)) for _ in range(_DRAWS))
    )


METHODS: dict[str, Method] = {
    "run rate": run_rate, "seasonal naive": seasonal_naive, "ours": ours
}  # fmt: skip


def scores(cell: Cell, tenants: int, seed: int) -> dict[str, Score]:
    draw = random.Random(seed)
    covered, off = dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0.0)
    for _ in range(tenants):
        days = tenant(draw, cell.history + cell.ahead, cell.step)
        history, actual = days[: cell.history], sum(days[cell.history :])
        for name, method in METHODS.items():
            low, middle, high = method(history, cell.ahead, draw)
            covered[name] += low <= actual <= high
            off[name] += abs(middle - actual) / actual
    return {name: Score(covered[name] / tenants, off[name] / tenants) for name in METHODS}


def table(tenants: int, seed: int) -> str:
    lines = [f"{'history, ahead':<28}" + "".join(f"{name:>24}" for name in METHODS)]
    for cell in CELLS:
        found = scores(cell, tenants, seed)
        told = "".join(
            f"{f'{each.covered:.0%} covered, {each.off:.0%} off':>24}" for each in found.values()
        )
        lines.append(f"{cell!s:<28}{told}")
    return "\n".join(lines)


def _interval(totals: list[float]) -> Interval:
    low, middle, high = (totals[len(totals) * percent // 100] for percent in (10, 50, 90))
    return low, middle, high


if __name__ == "__main__":
    print(table(300, 20261122))
