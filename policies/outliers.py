"""Which of several backends of one model is out of line with the others, and how it comes back.

in line --fails or is slow as no other does--> out --its time is over--> on the way back
on the way back: takes a share of its traffic that grows from a tenth to all; out of line again, it
is out for twice as long, up to ten seconds

Being out only puts it last: who has nobody else is still served. A backend is compared with its
peers, so what befalls all of them ejects none; slowness must be new as well, for a small machine is
not ill. At most half of the peers are out at a time.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

LEAST: Final = 20  # outcomes or durations before anything is said of a backend
FAILING_PERMILLE: Final = 100  # more failures than the peers by this, and ...
FAILING_TIMES: Final = 3  # ... so many times their share
SLOW_TIMES: Final = 3  # against the peers' middle
SLOWER_TIMES: Final = 2  # against its own usual
OUT_US: Final = 5_000_000
MAX_OUT_US: Final = 10_000_000
RAMP_US: Final = 8_000_000
FIRST_PERMILLE: Final = 100  # the share with which it comes back
ALL: Final = 1_000
_USUAL_TURNS: Final = 128  # looks over which the usual moves by two thirds of a difference

K = TypeVar("K")


class Seen(msgspec.Struct, frozen=True):
    """What was seen of one backend since it is back: of the last ten to twenty seconds."""

    outcomes: int = 0  # that say something of it: served or failed
    failures: int = 0
    median_us: int | None = None  # of time to first token; None: too few


class Standing(msgspec.Struct, frozen=True):
    """All there is to know of one backend. Times are microseconds of one clock."""

    out_until_us: int | None = None  # None: never out
    out_for_us: int = 0  # the last time; 0 once it has been back for as long
    usual_us: int = 0  # of time to first token, slowly followed; 0: not known


IN_LINE: Final = Standing()


def share(standing: Standing, now_us: int) -> int:
    """The thousandths of its traffic that it takes: 0 while out, then FIRST_PERMILLE to ALL."""
    if standing.out_until_us is None:
        return ALL
    return ramp(standing.out_until_us, now_us)


def ramp(back_at_us: int, now_us: int) -> int:
    """The share of one that is back since `back_at_us`."""
    since = now_us - back_at_us
    if since < 0:
        return 0
    return min(ALL, FIRST_PERMILLE + (ALL - FIRST_PERMILLE) * since // RAMP_US)


def sweep(
    standings: Mapping[K, Standing], seen: Mapping[K, Seen], now_us: int
) -> dict[K, Standing]:
    """The standings of peers after a look at all of them. Who has no standing yet is in line."""
    now = {key: _aged(standings.get(key, IN_LINE), now_us) for key in seen}
    out = {key for key, standing in now.items() if share(standing, now_us) == 0}
    suspects = sorted(
        (-gravity, at, key)
        for at, key in enumerate(seen)
        if key not in out and (gravity := _gravity(key, now, seen))
    )
    room = len(seen) // 2 - len(out)
    struck = {key for _gravity_, _at, key in suspects[: max(0, room)]}
    suspected = {key for _gravity_, _at, key in suspects}
    return {
        key: _ejected(standing, now_us)
        if key in struck
        else standing
        if key in suspected or key in out
        else _followed(standing, seen[key])
        for key, standing in now.items()
    }


def _aged(standing: Standing, now_us: int) -> Standing:
    """Who has been back for twice the ramp starts afresh."""
    until = standing.out_until_us
    if until is None or now_us < until + 2 * RAMP_US:
        return standing
    return Standing(usual_us=standing.usual_us)


def _gravity(key: K, standings: Mapping[K, Standing], seen: Mapping[K, Seen]) -> int:
    """How far it is out of line: 0, not at all. Failing weighs more than being slow."""
    one, peers = seen[key], [other for name, other in seen.items() if name != key]
    outcomes = sum(peer.outcomes for peer in peers)
    if one.outcomes >= LEAST and outcomes >= LEAST:
        failing = one.failures * 1_000 // one.outcomes
        usual = sum(peer.failures for peer in peers) * 1_000 // outcomes
        if failing >= usual + FAILING_PERMILLE and failing >= usual * FAILING_TIMES:
            return 1_000 + failing
    medians = sorted(peer.median_us for peer in peers if peer.median_us is not None)
    if one.median_us is None or not medians:
        return 0
    middle, usual_us = max(medians[len(medians) // 2], 1), standings[key].usual_us
    is_slow = one.median_us >= SLOW_TIMES * middle
    is_slower = 0 < usual_us * SLOWER_TIMES <= one.median_us
    return min(999, one.median_us * 10 // middle) if is_slow and is_slower else 0


def _ejected(standing: Standing, now_us: int) -> Standing:
    for_us = min(max(OUT_US, standing.out_for_us * 2), MAX_OUT_US)
    return Standing(now_us + for_us, for_us, standing.usual_us)


def _followed(standing: Standing, seen: Seen) -> Standing:
    median_us, usual_us = seen.median_us, standing.usual_us
    if median_us is None or median_us == usual_us:
        return standing
    if usual_us:
        difference = median_us - usual_us
        median_us = usual_us + (difference // _USUAL_TURNS or (1 if difference > 0 else -1))
    return Standing(standing.out_until_us, standing.out_for_us, median_us)
