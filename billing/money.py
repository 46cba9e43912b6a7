"""Amounts: whole picos in the ledger, whole counter units in budgets, minor units on an invoice."""

import re
from typing import Final

PICOS_PER_UNIT: Final = 10**12
MAX_COUNTER: Final = 2**53 - 1  # beyond it a Lua number is no longer exact

_PICO_DECIMALS: Final = 12
_DECIMAL: Final = re.compile(r"(-?)([0-9]{1,15})(?:\.([0-9]+))?")

# ISO 4217, List One, without precious metals, testing and "no currency".
_NO_DECIMALS: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_TWO_DECIMALS: Final = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP "
    "BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR "
    "FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR "
    "KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV "
    "MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR "
    "SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH "
    "USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
_THREE_DECIMALS: Final = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DECIMALS: Final = "CLF UYW"
_MINOR_EXPONENTS: Final[dict[str, int]] = (
    dict.fromkeys(_NO_DECIMALS.split(), 0)
    | dict.fromkeys(_TWO_DECIMALS.split(), 2)
    | dict.fromkeys(_THREE_DECIMALS.split(), 3)
    | dict.fromkeys(_FOUR_DECIMALS.split(), 4)
)

# A counter ends at 2^53: in nanos that is nine million units, which is little where a unit is worth
# about a US cent or less. Those count in millionths and reach nine thousand million. A currency
# never moves between the two: its counters would have to be rebuilt.
_NANOS: Final = 9
_MICROS: Final = 6
_SMALL_UNITS: Final = (
    "AMD AOA ARS BDT BIF CDF CLP COP CRC CVE DJF DZD ETB GNF GYD HTG HUF IDR IQD IRR ISK JMD "
    "JPY KES KHR KMF KPW KRW KZT LAK LBP LKR LRD MGA MMK MNT MWK NGN NPR PKR PYG RSD RWF SDG "
    "SOS SSP SYP TZS UGX UZS VED VES VND VUV XAF XOF XPF YER"
)
_COUNTER_EXPONENTS: Final[dict[str, int]] = dict.fromkeys(_MINOR_EXPONENTS, _NANOS) | dict.fromkeys(
    _SMALL_UNITS.split(), _MICROS
)
_COUNTER_PICOS: Final[dict[str, int]] = {
    currency: int(10 ** (_PICO_DECIMALS - exponent))
    for currency, exponent in _COUNTER_EXPONENTS.items()
}


def parse_decimal(text: str, decimals: int) -> int:
    """`text` x 10^decimals, exactly. ValueError unless it is plain digits, at most 15 before the
    point and `decimals` after it, with an optional minus: no exponent, plus, blank or grouping.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r:.60} is not a decimal amount; write at most 15 digits, "
            "optionally a point and decimals, such as 12.50"
        )
    sign, whole, fraction = match[1], match[2], match[3] or ""
    if len(fraction) > decimals:
        raise ValueError(
            f"{text!r:.60} has {len(fraction)} decimals; at most {decimals} are kept exactly"
        )
    value = int(whole + fraction.ljust(decimals, "0"))
    return -value if sign else value


def format_decimal(value: int, decimals: int) -> str:
    """`value` / 10^decimals, exactly: no exponent, no trailing zeros, `0` for nothing."""
    if not decimals:
        return str(value)
    digits = str(abs(value)).rjust(decimals + 1, "0")
    whole, fraction = digits[:-decimals], digits[-decimals:].rstrip("0")
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def parse_picos(text: str) -> int:
    """Picos of an amount in currency units, at most 12 decimals. ValueError names the fault."""
    return parse_decimal(text, _PICO_DECIMALS)


def format_picos(picos: int) -> str:
    """The exact amount in currency units; `parse_picos` reads it back."""
    return format_decimal(picos, _PICO_DECIMALS)


def minor_exponent(currency: str) -> int:
    """Decimals of the currency's minor unit (ISO 4217). ValueError for an unknown currency."""
    try:
        return _MINOR_EXPONENTS[currency]
    except KeyError:
        raise _unknown(currency) from None


def round_half_up(picos: int, currency: str) -> int:
    """Whole minor units, a half going away from zero. The one rounding of the house: an invoice's
    total goes through it once, and nothing that is still to be added up does.
    """
    return half_up(picos, minor_picos(1, currency))


def half_up(amount: int, step: int) -> int:
    """Whole steps, a half going away from zero."""
    steps, rest = divmod(abs(amount), step)
    if 2 * rest >= step:
        steps += 1
    return -steps if amount < 0 else steps


def minor_picos(minor: int, currency: str) -> int:
    """Picos of whole minor units; exact."""
    return int(minor * 10 ** (_PICO_DECIMALS - minor_exponent(currency)))


def format_minor(minor: int, currency: str) -> str:
    """Minor units in currency units with all of the currency's decimals: `12.30`, `417`."""
    exponent = minor_exponent(currency)
    sign = "-" if minor < 0 else ""
    if exponent == 0:
        return f"{sign}{abs(minor)}"
    whole, fraction = divmod(abs(minor), 10**exponent)
    return f"{sign}{whole}.{fraction:0{exponent}d}"


def format_amount(picos: int, currency: str) -> str:
    """`12.34 USD`: for eyes and headers, rounded; never parsed back into money."""
    return f"{format_minor(round_half_up(picos, currency), currency)} {currency}"


def counter_exponent(currency: str) -> int:
    """Decimals of the currency's budget counters: 9 (nanos), or 6 where a unit is worth about a US
    cent or less. ValueError for an unknown currency.
    """
    try:
        return _COUNTER_EXPONENTS[currency]
    except KeyError:
        raise _unknown(currency) from None


def counter_units(picos: int, currency: str) -> int:
    """Counter units of an amount, rounded up: a budget may count too much, never too little."""
    try:
        return -(-picos // _COUNTER_PICOS[currency])
    except KeyError:
        raise _unknown(currency) from None


def counter_picos(units: int, currency: str) -> int:
    """Picos of counter units; exact."""
    try:
        return units * _COUNTER_PICOS[currency]
    except KeyError:
        raise _unknown(currency) from None


def most_counted(currency: str, room_picos: int | None) -> int:
    """Counter units that a counter keeps exactly and whoever has room for so many picos can hold;
    None has room for all. ValueError for an unknown currency.
    """
    if room_picos is None:
        return MAX_COUNTER
    return min(MAX_COUNTER, room_picos // counter_picos(1, currency))


def parse_counter(text: str, currency: str) -> int:
    """Counter units of a budget's amount. ValueError when it is negative, finer than a counter unit
    or above MAX_COUNTER: such a budget could not be kept exactly.
    """
    units = parse_decimal(text, counter_exponent(currency))
    if units < 0:
        raise ValueError(f"{text!r} is negative; a budget is zero or more")
    if units > MAX_COUNTER:
        raise ValueError(
            f"{text!r} is more than a budget can count exactly; "
            f"the most is {format_counter(MAX_COUNTER, currency)} {currency}"
        )
    return units


def format_counter(units: int, currency: str) -> str:
    """Counter units as an exact amount in currency units; `parse_counter` reads it back."""
    return format_decimal(units, counter_exponent(currency))


def _unknown(currency: str) -> ValueError:
    return ValueError(
        f"{currency!r:.20} is not a currency of ISO 4217; write one such as USD or EUR"
    )
