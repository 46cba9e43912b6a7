"""What ranking is worth: one seeded trace, several ways of choosing, in virtual time.

Three machines in front of four workers. From the 60th to the 120th second the time to first token
of the first machine is five times as long. An answer in time begins within 800 ms.
"""

from collections.abc import Callable, Sequence

import pytest

from policies.compile import EffectivePolicy
from policies.objectives import Objective
from tests.bench.choosers import ByChance, ByPolicy, LeastLatency, RoundRobin
from tests.bench.fleet import SECOND, Chooser, Fleet, Machine, Request, trace

SEEDS = (7, 11, 23)
SLO_US = 800_000
SLO = (Objective("ttft", SLO_US),)
RATE = 20.0

Way = Callable[[list[Machine]], Chooser]


def by_policy(prefer: str, objectives: tuple[Objective, ...] = SLO) -> Way:
    policy = EffectivePolicy(objectives=objectives, prefer=prefer)
    return lambda machines: ByPolicy(machines, policy)


WAYS: dict[str, Way] = {
    "round robin": RoundRobin,
    "random": ByChance,
    "least latency": LeastLatency,
    "cheapest": by_policy("cheapest"),
    "fastest": by_policy("fastest"),
    "balanced": by_policy("balanced"),
}


def shifting(prices: tuple[int, int, int]) -> list[Machine]:
    def slow(now_us: int) -> int:
        return 5 if 60 * SECOND <= now_us < 120 * SECOND else 1

    return [
        Machine("a", 200_000, price=prices[0], slow=slow),
        Machine("b", 200_000, price=prices[1]),
        Machine("c", 250_000, price=prices[2]),
    ]


def ran(way: Way, prices: tuple[int, int, int], seed: int) -> list[Request]:
    machines = shifting(prices)
    return Fleet(machines, way(machines)).run(trace(seed, 180, RATE))


def between(requests: Sequence[Request], since_s: int, until_s: int) -> list[Request]:
    return [one for one in requests if since_s * SECOND <= one.at_us < until_s * SECOND]


def attained(requests: Sequence[Request]) -> float:
    """Per cent that began in time; who was never answered did not."""
    in_time = sum(one.ttft_us is not None and one.ttft_us <= SLO_US for one in requests)
    return 100 * in_time / len(requests)


def at_first(requests: Sequence[Request]) -> float:
    """Per cent that went to the machine that slows down."""
    return 100 * sum(one.place == 0 for one in requests) / len(requests)


def percentile(requests: Sequence[Request], p: int) -> float:
    ordered = sorted(one.ttft_us or 10**9 for one in requests)
    return ordered[len(ordered) * p // 100] / 1000


@pytest.mark.parametrize("prices", [(1, 1, 1), (1, 2, 3)], ids=["one price", "three prices"])
def test_more_answers_begin_in_time_than_by_turns_by_chance_or_by_least_latency(
    prices: tuple[int, int, int], figure: Callable[[str], None]
) -> None:
    lines = ["in time %: all, 60-120 s; ttft ms: p50, p95; % at the slow one: 30-60, 80-120 s"]
    results: dict[str, float] = {}
    for name, way in WAYS.items():
        done = [one for seed in SEEDS for one in ran(way, prices, seed)]
        results[name] = attained(done)
        slow = between(done, 60, 120)
        lines.append(
            f"{name:14} {attained(done):5.1f} {attained(slow):5.1f}"
            f" {percentile(done, 50):6.0f} {percentile(done, 95):6.0f}"
            f" {at_first(between(done, 30, 60)):5.1f} {at_first(between(done, 80, 120)):5.1f}"
        )
    figure("\n  ".join(lines))

    others = max(results[name] for name in ("round robin", "random", "least latency"))
    for name in ("cheapest", "fastest", "balanced"):
        assert results[name] > others + 3, name


@pytest.mark.parametrize("prefer", ["cheapest", "fastest", "balanced"])
def test_traffic_has_moved_within_twenty_seconds_and_comes_back(
    prefer: str, figure: Callable[[str], None]
) -> None:
    done = ran(by_policy(prefer), (1, 1, 1), SEEDS[0])
    before, after = at_first(between(done, 30, 60)), at_first(between(done, 80, 120))
    back = at_first(between(done, 170, 180))
    figure(f"{prefer}: {before:.1f} % before, {after:.1f} % from 20 s after, {back:.1f} % back")

    assert before > 25
    assert after < before / 10
    assert back > before / 2


def test_a_dead_backend_takes_next_to_nothing_and_is_back_soon(
    figure: Callable[[str], None],
) -> None:
    """Dead from the 30th to the 90th second; refused attempts go elsewhere, as `forward` does."""
    dead_s, healed_s = 30, 90
    machines = [
        Machine("a", 200_000, dead=lambda us: dead_s * SECOND <= us < healed_s * SECOND),
        Machine("b", 200_000, slots=32),
        Machine("c", 200_000, slots=32),
    ]
    chooser = ByPolicy(machines, EffectivePolicy())
    done = Fleet(machines, chooser).run(trace(SEEDS[0], 130, 40.0))

    later = between(done, dead_s + 2, healed_s)
    share = 100 * sum(len(one.failed) for one in later) / len(later)
    first = min(one.at_us for one in between(done, healed_s, 130) if one.place == 0)
    fair = at_first(between(done, 10, dead_s))
    back = at_first(between(done, healed_s + 13, healed_s + 17))
    figure(
        f"{share:.2f} % of traffic after 2 s; first served {(first / SECOND - healed_s):.1f} s"
        f" after healing, {back:.0f} % of traffic 15 s after it, {fair:.0f} % before"
    )

    assert share < 1
    assert first < (healed_s + 15) * SECOND
    assert back > fair / 2
    assert all(one.ttft_us is not None for one in done), "nobody was refused"
