"""Rate and concurrency limits: the executable model of what the Lua scripts do with them.

A rate is GCRA: one instant per limit, the theoretical arrival time (`tat`), says how much of the
limit is in use. A concurrency limit counts live holds. Times are microseconds of the store's clock
unless the name says otherwise; an idle gate has no entry.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

MAX_DEBT_US: Final = 2**50  # 35 years; keeps every instant exact in the scripts' numbers


class Gate(msgspec.Struct, frozen=True, array_like=True):
    """One rate limit as one request meets it.

    `advance_us` is what this request uses: its requests or tokens x 60 s / limit per minute.
    `burst_us` is how far ahead of now the limit may run: burst x 60 s / limit per minute.
    """

    key: str
    advance_us: int
    burst_us: int
    limit_id: str
    kind: str  # rpm | tpm


class Slot(msgspec.Struct, frozen=True, array_like=True):
    """One concurrency limit: at most `maximum` live holds."""

    key: str
    maximum: int
    limit_id: str


def wait_us(tat_us: int, gate: Gate, now_us: int) -> int:
    """How long until the gate would let this request in; zero or less: now.

    A request larger than the burst waits for an idle gate, then runs it into debt: it is slowed
    down, not impossible.
    """
    asked = min(gate.advance_us, gate.burst_us)
    return max(tat_us, now_us) + asked - now_us - gate.burst_us


def taken(tat_us: int, gate: Gate, now_us: int) -> int:
    """The gate's new `tat_us` after this request went in."""
    return max(tat_us, now_us) + min(gate.advance_us, MAX_DEBT_US)


def corrected(tat_us: int, delta_us: int, now_us: int) -> int | None:
    """The gate after the true size became known; None when that leaves it idle."""
    tat_us = min(max(tat_us, now_us) + delta_us, now_us + MAX_DEBT_US)
    return tat_us if tat_us > now_us else None


def all_corrected(
    gates: Mapping[str, int], corrections: Sequence[tuple[str, int]], now_us: int
) -> dict[str, int]:
    """The gates after each of these (key, delta_us); an idle one has no entry."""
    after = dict(gates)
    for key, delta_us in corrections:
        tat_us = corrected(after.pop(key, 0), delta_us, now_us)
        if tat_us is not None:
            after[key] = tat_us
    return after


def is_full(slot: Slot, expiries_ms: Mapping[str, int], now_ms: int) -> bool:
    """Whether as many holds are alive as the limit allows. An expired hold holds no slot."""
    return sum(expiry_ms > now_ms for expiry_ms in expiries_ms.values()) >= slot.maximum
