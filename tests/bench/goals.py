"""What a figure is held against. Whoever prints one says how busy the machine was."""

import os
import sys
from collections.abc import Iterable

import msgspec


class Goal(msgspec.Struct, frozen=True):
    """A figure beside its goal, both as they are printed."""

    what: str
    figure: str
    goal: str
    met: bool


def told(goals: Iterable[Goal]) -> int:
    """Prints them; an exit status: 1 where one is missed."""
    missed = 0
    for each in goals:
        missed += not each.met
        word = "met" if each.met else "MISSED"
        print(f"  {each.what:46} {each.figure:>16}   goal {each.goal:24} {word}")
    print(f"  load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    sys.stdout.flush()
    return 1 if missed else 0
