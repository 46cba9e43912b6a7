"""Cores, CPU time and memory of processes, where the system tells."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")


def cores() -> tuple[frozenset[int], frozenset[int]]:
    """(the core of whoever is measured, the cores of everything else); one core serves for both."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset(), frozenset()
    first, *others = sorted(os.sched_getaffinity(0))
    return frozenset({first}), frozenset(others or [first])


def pin(pids: Iterable[int], to: frozenset[int]) -> None:
    """Every thread of these processes; a process that is gone meanwhile does not matter."""
    if not to or not hasattr(os, "sched_setaffinity"):
        return
    for pid in pids:
        for thread in _threads(pid):
            try:
                os.sched_setaffinity(thread, to)
            except ProcessLookupError:
                continue


def prefer(pids: Iterable[int]) -> None:
    """Keeps other work on the machine out of the figures, where we may."""
    for pid in pids:
        with suppress(PermissionError, ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, pid, -15)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {int(path.parent.name): _parent(path) for path in PROC.glob("[0-9]*/stat")}
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += [child for child, parent in parents.items() if parent == found[-1]]
    return found


def command(pid: int) -> str:
    """The command line, with spaces; empty when the process is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def cpu_seconds(pids: Iterable[int]) -> float | None:
    """User and system time so far; None where there is no /proc."""
    if not PROC.exists():
        return None
    ticks = 0
    for pid in pids:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mib(pids: Iterable[int]) -> float | None:
    if not PROC.exists():
        return None
    pages = sum(int((PROC / str(pid) / "statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _threads(pid: int) -> list[int]:
    try:
        return [int(path.name) for path in (PROC / str(pid) / "task").iterdir()]
    except OSError:
        return []


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
