"""What a box of our own cost beyond what its tokens were charged at: on an account of its own, or
spread by a stated rule.

A token costs what it costs at the planned utilisation. A box that is busier earns more than it
costs, one that idles less; the difference is nobody's tokens. Amounts are picos and may be negative
(more was absorbed than it cost); whatever the rule, the parts add up to it exactly.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Final, Literal, get_args

import msgspec

from billing.money import PICOS_PER_UNIT
from billing.tco import Profile, hourly

Rule = Literal["platform", "busy", "even"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)
IDLE: Final = "idle"  # the platform's account

_HOUR_US: Final = 3_600_000_000


class Absorbed(msgspec.Struct, frozen=True):
    """Of a span of time: what it cost to keep the box, what its tokens took of that, and what is
    left over.
    """

    actual_picos: int
    absorbed_picos: int

    @property
    def variance_picos(self) -> int:
        return self.actual_picos - self.absorbed_picos


def absorbed(profile: Profile, span_us: int, busy_us: int, cost_picos: int) -> Absorbed:
    """`cost_picos`: what was booked as the cost of its tokens. A box is powered all the time."""
    if not span_us:
        return Absorbed(0, cost_picos)
    hour = hourly(profile, Fraction(min(busy_us, span_us), span_us)).total
    actual = Fraction(hour * PICOS_PER_UNIT * span_us, _HOUR_US)
    return Absorbed(-(-actual.numerator // actual.denominator), cost_picos)


def spread(picos: int, rule: Rule, weights: Mapping[str, int]) -> dict[str, int]:
    """The parts by account, which add up to `picos`. By `platform`, or where nobody has a weight,
    all of it is idle. `busy` goes by the weights (busy seconds), `even` by who is there.
    """
    there = {name: weight for name, weight in sorted(weights.items()) if weight > 0}
    if rule == "even":
        there = dict.fromkeys(sorted(weights), 1)
    if rule == "platform" or not there:
        return {IDLE: picos}
    whole, sign = sum(there.values()), -1 if picos < 0 else 1
    parts = {name: abs(picos) * weight // whole for name, weight in there.items()}
    left = abs(picos) - sum(parts.values())
    # The largest remainders first; of equal ones the first by name.
    rests = sorted(there, key=lambda name: (-(abs(picos) * there[name] % whole), name))
    for name in rests[:left]:
        parts[name] += 1
    return {name: sign * part for name, part in parts.items()}
