"""`python -m tests.bench.prompts`: what long prompts cost the whole gateway, beside nginx in the
same run, and what prompts cost that are made to be hard to count.

CPU a request of the one process that serves, in closed loops of a few connections; nginx keeps the
bodies in memory, as we do. What a size adds is counted from a request of 2 KB.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Final

from tests.bench import machine, subjects
from tests.bench.goals import Goal, told
from tests.bench.house import gateway
from tests.bench.scenarios import Scenario, measure
from tests.bench.subjects import Subject

_KIB: Final = 1024
_SENTENCE: Final = "Tell me about the house by the water. "
_SMALL: Final = 2
_SIZES: Final = (_SMALL, 32, 200, 2_000)  # KiB; the last one shows whether the cost is a line
_CONNECTIONS: Final = 4
_WARM_S: Final = 1.0  # first, for what is loaded once: vocabularies, and the memory of long bodies
_COUNTED_KIB: Final = 200
_HUGE_KIB: Final = 4_000
_MOST_BEND: Final = 2  # of a line: fresh memory for megabytes costs page faults
_MOST_TIMES: Final = 4  # a text that is hard to count, beside prose of its length
# A backend that reports nothing leaves the counting to us.
_HARD: Final = {
    "prose": _SENTENCE,
    "one letter": "a",
    "blanks": " ",
    "line breaks": "\n",
    "digits": "1234567890",
    "no blanks": "Tellmeaboutthehousebythewater,please!",
    "emoji": "\N{PILE OF POO}\N{ZERO WIDTH JOINER}",
    "accents": "e\N{COMBINING ACUTE ACCENT}",
}

Costs = Mapping[tuple[str, str], float]  # (subject, scenario) -> CPU microseconds a request


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.prompts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="figures are medians over these")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    arguments = parser.parse_args()
    sized = [Scenario(f"{kib} KiB", _CONNECTIONS, text=_long(_SENTENCE, kib)) for kib in _SIZES]
    hard = [_quiet(name, _COUNTED_KIB) for name in _HARD] + [_quiet("prose", _HUGE_KIB)]
    with ExitStack() as stack:
        backend = stack.enter_context(subjects.backend())
        nginx = stack.enter_context(subjects.nginx(backend.port))
        ours = stack.enter_context(gateway(backend.port))
        present = [each for each in (backend, nginx, ours) if each is not None]
        _place(present)
        costs = _costs(present[1:], sized, arguments.rounds, arguments.seconds)
        costs |= _costs([ours], hard, 1, arguments.seconds)
    return told([*_by_size(costs, nginx is not None), *_by_text(costs)])


def _long(piece: str, kib: int) -> str:
    return (piece * (kib * _KIB // len(piece) + 1))[: kib * _KIB]


def _quiet(name: str, kib: int) -> Scenario:
    return Scenario(f"{name}, {kib} KiB", 1, text="#quiet " + _long(_HARD[name], kib))


def _place(present: Sequence[Subject]) -> None:
    measured, others = machine.cores()
    for subject in present:
        machine.pin(subject.pids, others if subject.name == "direct" else measured)
        machine.pin(subject.helpers, others)
        machine.prefer((*subject.pids, *subject.helpers))


def _costs(
    present: Sequence[Subject], scenarios: Sequence[Scenario], rounds: int, seconds: float
) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        there = number % 2 == 0
        for subject in present if there else present[::-1]:
            measure(subject, scenarios[0], _WARM_S)
            for scenario in scenarios if there else scenarios[::-1]:
                measured = measure(subject, scenario, seconds)
                if measured.result.failures:
                    raise RuntimeError(f"{subject.name}: {measured.result.first_failure}")
                cpu_us = measured.cpu_us_per_request or 0.0
                found.setdefault((subject.name, scenario.name), []).append(cpu_us)
    return {key: median(values) for key, values in found.items()}


def _by_size(costs: Costs, with_nginx: bool) -> list[Goal]:
    for name in dict.fromkeys(subject for subject, _ in costs):
        each = [f"{kib} KiB {costs[name, f'{kib} KiB']:.0f} us" for kib in _SIZES]
        print(f"{name}: " + ", ".join(each))
    ours = {kib: costs["gateway", f"{kib} KiB"] for kib in _SIZES}
    small, _, long, longest = _SIZES
    first = (ours[long] - ours[small]) / (long - small)
    second = (ours[longest] - ours[long]) / (longest - long)
    goals = [
        Goal(
            f"a KiB more, up to {longest} and up to {long} KiB",
            f"{second:.2f}, {first:.2f} us",
            f"<= {_MOST_BEND} times",
            second <= _MOST_BEND * first,
        )
    ]
    for kib in _SIZES[1:-1] if with_nginx else ():
        added = ours[kib] - ours[_SMALL]
        theirs = costs["nginx", f"{kib} KiB"] - costs["nginx", f"{_SMALL} KiB"]
        most = 2 * theirs + kib - _SMALL
        goals.append(
            Goal(
                f"what {kib} KiB add to a request",
                f"{added:.0f} us",
                f"<= {most:.0f} us (2 x nginx + 1/KiB)",
                added <= most,
            )
        )
        whole = 2 * costs["nginx", f"{kib} KiB"] + kib
        print(f"  whole request of {kib} KiB: {ours[kib]:.0f} us; 2 x nginx + 1/KiB: {whole:.0f}")
    return goals


def _by_text(costs: Costs) -> list[Goal]:
    """Of requests that are counted here, once the vocabulary is there."""
    prose = costs["gateway", f"prose, {_COUNTED_KIB} KiB"]
    most = _MOST_TIMES * prose
    goals = []
    for name in [*_HARD, "prose"][1:]:
        kib = _HUGE_KIB if name == "prose" else _COUNTED_KIB
        cost = costs["gateway", f"{name}, {kib} KiB"]
        goals.append(
            Goal(
                f"{kib} KiB of {name}, counted here",
                f"{cost / 1000:.1f} ms",
                f"<= {most / 1000:.1f} ms ({_MOST_TIMES} x prose)",
                cost <= most,
            )
        )
    return goals


if __name__ == "__main__":
    sys.exit(main())
