"""What `meterhouse tco` tells of a profile: in figures for machines, and the same in words."""

import textwrap
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

import msgspec

from billing.boxes import AS_OF, BOXES, Box, filled
from billing.meters import Meter, Meters
from billing.money import format_decimal
from billing.prices import Rate, amount_per_million, picos_per_token, sealed_card
from billing.rating import rate
from billing.tco import (
    HOURS_PER_MONTH,
    Profile,
    break_even,
    busy_seconds,
    faults,
    hourly,
    kwh_per_million,
    unit_costs,
)
from billing.tco import picos_per_token as rounded_up
from gateway.program import typed

Told = dict[str, Any]

_DECIMALS: Final = 6
_INDENT: Final = " " * 6
_UTILISATIONS: Final = ("0.1", "0.2", "0.35", "0.5", "0.7", "1")
_ELECTRICITY: Final = (Fraction(1, 2), Fraction(1), Fraction(2), Fraction(3))
_WHOLE_NUMBERS: Final = ("life_years", "power_busy_watts", "power_idle_watts")


def profile(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Profile:
    """ValueError says which fields are unknown, missing or cannot be, and what to write."""
    given = {name: value for name, value in {**base, **changes}.items() if value is not None}
    box = given.pop("profile", None)
    if box is not None and box not in BOXES:
        raise ValueError(f"there is no box {box!r}; there are {', '.join(BOXES)}")
    unknown = sorted(given.keys() - set(Profile.__struct_fields__))
    if unknown:
        known = ", ".join(name for name in Profile.__struct_fields__ if name != "profile")
        raise ValueError(f"a profile has no {', '.join(unknown)}; it has {known}")
    written = {name: _number(name, value) for name, value in given.items()}
    try:
        found = filled(box, written)
    except ValueError as missing:
        raise ValueError(f"the profile lacks {missing}; or name a box to begin with") from None
    wrong = [f"{each.field}: {each.message}; {each.remedy}" for each in faults(found)]
    if wrong:
        raise ValueError("\n  ".join(wrong))
    return found


def work(text: str) -> Meters:
    """A request written as uncached input, cached input and output tokens."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"{text!r} is not a request; write its tokens as 1000,0,300")
    uncached, cached, output = map(int, parts)
    if not uncached + cached + output:
        raise ValueError("a request without tokens costs nothing anywhere")
    return Meters(input=uncached, cache_read=cached, output=output)


def report(found: Profile, hosted: Mapping[str, str], request: Meters) -> Told:
    """Everything, as JSON has it: amounts are decimal text in the profile's currency."""
    planned = Fraction(found.planned_utilisation)
    box = None if found.profile is None else BOXES[found.profile]
    hour = hourly(found)
    told: Told = {
        "profile": msgspec.to_builtins(found),
        "defaults": None if box is None else _origin(box),
        "hour": _hour(found, planned),
        "busy_hour": _text(Fraction(hour.total, planned)),
        "per_million": _per_million(found, planned),
        "per_million_always_busy": _per_million(found, Fraction(1)),
        "kwh_per_million": _energy(found),
        "by_utilisation": [_at(found, Fraction(each)) for each in _UTILISATIONS],
        "by_electricity": [_powered(found, each) for each in _ELECTRICITY],
        "break_even": None,
    }
    if hosted:
        told["break_even"] = _break_even(found, planned, hosted, request)
    return told


def _origin(box: Box) -> Told:
    return {"title": box.title, "source": box.source, "as_of": AS_OF}


def _hour(found: Profile, utilisation: Fraction) -> Told:
    hour = hourly(found, utilisation)
    parts = msgspec.structs.asdict(hour) | {"total": hour.total}
    return {name: _text(value) for name, value in parts.items()}


def _per_million(found: Profile, utilisation: Fraction) -> Told | None:
    """As a cost book would have them: rounded up to a whole pico a token."""
    if found.prefill_tokens_per_second is None:
        return None
    costs = msgspec.structs.asdict(unit_costs(found, utilisation))
    return {
        name: None if cost is None else amount_per_million(rounded_up(cost))
        for name, cost in costs.items()
    }


def _energy(found: Profile) -> Told:
    rates = {"input": found.prefill_tokens_per_second, "output": found.decode_tokens_per_second}
    return {
        n: None if rate is None else _text(kwh_per_million(found, rate))
        for n, rate in rates.items()
    }


def _at(found: Profile, utilisation: Fraction) -> Told:
    hour = _text(hourly(found, utilisation).total)
    prices = _per_million(found, utilisation)
    return {"utilisation": _text(utilisation), "hour": hour, "per_million": prices}


def _powered(found: Profile, times: Fraction) -> Told:
    price = _text(Fraction(found.electricity_per_kwh) * times)
    other = msgspec.structs.replace(found, electricity_per_kwh=price)
    planned = Fraction(found.planned_utilisation)
    return {"electricity_per_kwh": price} | _at(other, planned)


def _break_even(
    found: Profile, planned: Fraction, hosted: Mapping[str, str], request: Meters
) -> Told:
    """From which utilisation on the box is the cheaper one, and how much work that is."""
    if "input" not in hosted or (request.output and "output" not in hosted):
        raise ValueError("a break-even needs --hosted-input and --hosted-output")
    rates = [Rate(Meter(meter), picos_per_token(price), "") for meter, price in hosted.items()]
    asked = rate(request, sealed_card(found.currency, rates))
    even, seconds = break_even(found, request, asked), busy_seconds(found, request)
    own = Fraction(hourly(found).total * seconds, planned * 3600)
    hourly_requests = None if even is None else even * 3600 / seconds
    monthly = None if hourly_requests is None else hourly_requests * HOURS_PER_MONTH
    return {
        "request": {
            name: getattr(request, name) for name in ("input", "cache_read", "output")
        },
        "hosted": _text(Fraction(asked, 10**12), 12),
        "own_as_planned": _text(own, 12),
        "cheaper_as_planned": "own" if own * 10**12 < asked else "hosted",
        "utilisation": None if even is None else _text(even),
        "requests_per_hour": None if hourly_requests is None else _text(hourly_requests, 0),
        "requests_per_month": None if monthly is None else _text(monthly, 0),
    }  # fmt: skip


def _number(name: str, value: Any) -> Any:
    if name not in _WHOLE_NUMBERS:
        return str(value)
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{name}: {value!r} is not a whole number") from None


def _text(value: Fraction, decimals: int = _DECIMALS) -> str:
    """Half up; without needless zeros."""
    return format_decimal(int(value * 10**decimals + Fraction(1, 2)), decimals)


def boxes(known: Mapping[str, Box]) -> list[Told]:
    return [
        {"name": name, "hour": _hour(box.profile, Fraction(box.profile.planned_utilisation))}
        | _origin(box)
        | {"profile": msgspec.to_builtins(box.profile)}
        for name, box in known.items()
    ]


def boxes_in_words(known: Mapping[str, Box]) -> Iterator[str]:
    yield f"Boxes to begin with, as of {AS_OF}; every figure can be replaced:"
    for name, box in known.items():
        hour = _text(hourly(box.profile).total, 3)
        used = _percent(box.profile.planned_utilisation)
        yield f"  {name:<12} {hour:>7} {box.profile.currency} an hour at {used}  {box.title}"
        yield from textwrap.wrap(box.source, 98, initial_indent=_INDENT, subsequent_indent=_INDENT)
    yield f"{typed('tco h100 --prefill RATE --decode RATE')} has the price of its tokens."


def in_words(told: Told) -> Iterator[str]:
    used, hour, of = told["profile"], told["hour"], told["profile"]["currency"]
    if told["defaults"] is not None:
        yield f"{used['profile']}: {told['defaults']['title']}, as of {told['defaults']['as_of']}"
        source = told["defaults"]["source"]
        yield from textwrap.wrap(source, 98, initial_indent="  ", subsequent_indent="  ")
    parts = ", ".join(
        f"{name} {_short(hour[name])}" for name in ("capital", "operations", "rent", "energy")
    )
    planned = _percent(used["planned_utilisation"])
    yield f"  an hour      {_short(hour['total'])} {of}: {parts}"
    yield f"  a busy hour  {_short(told['busy_hour'])} {of}: it is busy {planned} of the time"
    if told["per_million"] is None:
        yield "  a million    not known: measure the model alone on the box, then give --prefill"
        yield "               and --decode in tokens a second"
    else:
        yield f"  a million    {_prices(told['per_million'])} {of}"
        yield f"  always busy  {_prices(told['per_million_always_busy'])} {of}"
    energy = told["kwh_per_million"]["output"]
    if energy is not None:
        yield f"  energy       {_short(energy)} kWh a million output tokens"
    yield from _rows("utilisation", told["by_utilisation"], "utilisation")
    yield from _rows("electricity", told["by_electricity"], "electricity_per_kwh")
    if told["break_even"] is not None:
        yield from _break_even_in_words(told["break_even"], planned, of)


def _rows(title: str, rows: list[Told], field: str) -> Iterator[str]:
    for row in rows:
        what = _percent(row[field]) if field == "utilisation" else f"{_short(row[field])}/kWh"
        prices = "" if row["per_million"] is None else f"; {_prices(row['per_million'])}"
        yield f"  {title:<12} {what:>9}  {_short(row['hour'])} an hour{prices}"
        title = ""


def _break_even_in_words(even: Told, planned: str, of: str) -> Iterator[str]:
    hosted, own = even["hosted"], even["own_as_planned"]
    yield f"  a request    hosted {hosted} {of}, own {own} {of} at {planned} busy"
    if even["utilisation"] is None:
        yield "  break-even   never: even always busy the box is dearer than the hosted price"
        return
    share, requests = _percent(even["utilisation"]), even["requests_per_hour"]
    yield f"  break-even   from {share} busy on, {requests} such requests an hour"


def _prices(prices: Told) -> str:
    known = {name.replace("_", " "): price for name, price in prices.items() if price is not None}
    return ", ".join(f"{name} {_short(price, 4)}" for name, price in known.items())


def _short(amount: str, decimals: int = 3) -> str:
    return _text(Fraction(amount), decimals)


def _percent(share: str) -> str:
    return f"{_text(Fraction(share) * 100, 1)} %"
