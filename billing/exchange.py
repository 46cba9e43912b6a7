"""Amounts of an invoice that is in another currency than the ledger: at one rate, kept with it.

Exact amounts are whole 10^-24 units of the invoice's currency: picos times a rate of 12 decimals.
Nothing is rounded before the total.
"""

from typing import Final

import msgspec

from billing.money import format_decimal, minor_exponent, parse_decimal

RATE_DECIMALS: Final = 12
EXACT_DECIMALS: Final = 24
MAX_AGE_DAYS: Final = 31  # an older rate is none
LEAP_PERCENT: Final = 10  # more than that between two rates of a month is rather a mistake

_ONE: Final = 10**RATE_DECIMALS
_PRICE_DECIMALS: Final = 6 + RATE_DECIMALS  # of a million tokens, from picos per token


class Exchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an invoice came from the ledger's currency to its own. Decimals as text."""

    currency: str  # the ledger's
    rate: str  # units of the invoice's currency for one of the ledger's
    day: str  # of the rate, such as 2026-10-31
    source: str
    amount: str | None = None  # what is billed, in the ledger's currency; None of a credit note
    rounding: str = "0"  # what the `rounding` line has, in the invoice's currency
    # Numbers of invoices that usage came too late for, and the rates that those were made at: what
    # is taken back comes to what was billed.
    earlier: dict[str, str] = {}


class Amounts:
    """What lines come to on an invoice; without an exchange, what they come to in the ledger."""

    def __init__(self, exchange: Exchange | None) -> None:
        self._exchange = exchange
        self._rounding = 0
        self._rate = _ONE
        self._earlier: dict[str | None, int] = {}
        if exchange is not None:
            self._rounding = parse_decimal(exchange.rounding, EXACT_DECIMALS)
            self._rate = parse_rate(exchange.rate)
            self._earlier = {of: parse_rate(rate) for of, rate in exchange.earlier.items()}

    def exact(self, kind: str, picos: int, corrects: str | None) -> int:
        """10^-24 of the invoice's currency. The line of a credit note is in that already; rounding
        is no ledger's business.
        """
        if kind == "credit":
            return picos * _ONE
        if kind == "rounding" and self._exchange is not None:
            return self._rounding
        return picos * self._at(corrects)

    def text(self, kind: str, picos: int, corrects: str | None) -> str:
        """The same in currency units: no exponent, no trailing zeros."""
        return format_decimal(self.exact(kind, picos, corrects), EXACT_DECIMALS)

    def price(self, picos_per_token: int, corrects: str | None) -> str:
        """Of a million tokens, in the invoice's currency; exact."""
        return format_decimal(picos_per_token * self._at(corrects), _PRICE_DECIMALS)

    def _at(self, corrects: str | None) -> int:
        return self._earlier.get(corrects, self._rate)


def parse_rate(text: str) -> int:
    """10^-12 units. ValueError unless it is a decimal above zero with at most 12 decimals."""
    rate = parse_decimal(text, RATE_DECIMALS)
    if rate <= 0:
        raise ValueError(f"a rate of {text!r} exchanges nothing; it is above zero")
    return rate


def inverse(text: str) -> str:
    """The rate the other way round, to 12 decimals, a half going up. ValueError where that is
    nothing.
    """
    rate = parse_rate(text)
    turned = (2 * _ONE * _ONE + rate) // (2 * rate)
    if turned == 0:
        raise ValueError(f"the inverse of {text} has no 12 decimals; enter it the other way round")
    return format_decimal(turned, RATE_DECIMALS)


def is_leap(rate: str, beside: str, *, turned: bool = False) -> bool:
    """Whether the larger of two rates is more than LEAP_PERCENT above the smaller; `turned`:
    `beside` is the other way round. Exact, so that it is the same whichever way both are written.
    """
    was, now = parse_rate(beside), parse_rate(rate)
    low, high = sorted((now * was, _ONE * _ONE) if turned else (now, was))
    return high * 100 > low * (100 + LEAP_PERCENT)


def minor_step(currency: str) -> int:
    """A minor unit in 10^-24 units."""
    return int(10 ** (EXACT_DECIMALS - minor_exponent(currency)))
