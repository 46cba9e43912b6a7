"""What a policy demands of speed: each objective a percentile of one figure over one window.

Objectives add up. A document brings its own with its own percentile and window, so that no other
document can change how they are measured (L11).
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from policies.candidates import Live

METRICS: Final = ("ttft", "tpot", "total")
PERCENTILE: Final = 95  # where a document names no other
WINDOW_S: Final = 60
WINDOWS_S: Final = (20, 30, 40, 50, 60)  # whole slots of the rings; one slot alone is half empty

View = str  # `ttft_p99_20s`


class Objective(msgspec.Struct, frozen=True):
    """At most `most_us` at the percentile of the window."""

    metric: str  # ttft | tpot | total
    most_us: int
    percentile: int = PERCENTILE
    window_s: int = WINDOW_S

    @property
    def view(self) -> View:
        return f"{self.metric}_p{self.percentile}_{self.window_s}s"

    @property
    def usual(self) -> bool:
        """Whether everybody measures it so; other views are measured for those who ask."""
        return self.percentile == PERCENTILE and self.window_s == WINDOW_S

    def measured(self, live: Live) -> int | None:
        """Microseconds; None: too few samples."""
        if not self.usual:
            return live.others.get(self.view)
        if self.metric == "ttft":
            return live.ttft_p95_us
        return live.tpot_p95_us if self.metric == "tpot" else live.total_p95_us


Objectives = tuple[Objective, ...]


def together(outer: Objectives, inner: Objectives) -> Objectives:
    """All of both; of two that differ only in the limit, the tighter."""
    tightest: dict[View, Objective] = {}
    for each in (*outer, *inner):
        known = tightest.get(each.view)
        if known is None or each.most_us < known.most_us:
            tightest[each.view] = each
    return tuple(tightest[view] for view in sorted(tightest))


def unusual(objectives: Iterable[Objective]) -> Objectives:
    """Those that are measured only for whoever asks."""
    return tuple(each for each in objectives if not each.usual)
