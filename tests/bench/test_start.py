"""A start stays light. Time is shown and not judged: it belongs to the machine, CPU time to us."""

from collections.abc import Callable
from statistics import median

import pytest

from tests.bench.start import measure, text

pytestmark = pytest.mark.long

MOST_MIB = {"data-0": 100, "admin": 100, "jobs": 85, "up": 40}
MOST_CPU_SECONDS = 3.0  # twice what it takes on a busy machine


def test_a_start_on_existing_data_is_quick_and_leaves_small_processes(
    figure: Callable[[str], None],
) -> None:
    starts = measure(3)

    figure(text(starts))
    heavy = {
        name: mib
        for start in starts
        for name, mib in start.rss_mib.items()
        if mib > MOST_MIB.get(name, 100)
    }
    assert heavy == {}
    assert median(start.cpu_s for start in starts) <= MOST_CPU_SECONDS
