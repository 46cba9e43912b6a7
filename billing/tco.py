"""What a box of our own costs by the hour, and what a token on it costs: levelised, exact.

    CRF(r, N) = r / (1 - (1 + r)^-N)                    what of a capital a year has to pay
    H = [(capex - salvage / (1 + r)^N) x CRF + operations] / 8760 + rent
        + (u x busy + (1 - u) x idle) x PUE x electricity             money per powered hour
    a = H / (u x 3600 x prefill rate)                                 money per prefilled token
    b = H / (u x 3600 x decode rate)                                  money per output token
    c = cached ratio x a                                              money per cached token

`u` is the share of powered hours in which the box is busy; a rate is what it does in a second when
it does nothing else. Everything is a Fraction until it becomes a price: then it is rounded up,
once, to a whole pico per token, so that a cost is never understated.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import msgspec

from billing.meters import Meter, Meters
from billing.money import PICOS_PER_UNIT, minor_exponent, parse_decimal
from billing.prices import MAX_PICOS_PER_TOKEN

HOURS_PER_YEAR: Final = 8760
HOURS_PER_MONTH: Final = 730
_SECONDS_PER_HOUR: Final = 3600
_WATTS_PER_KILOWATT: Final = 1000
_DECIMALS: Final = 12
_LONGEST_LIFE_YEARS: Final = 30


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One powered box. Money in units of `currency`; all text is plain decimals, kept as written.

    Capital and rent exclude one another in practice, not here: a rented machine in an own rack has
    both. `profile` says which of `billing.boxes` lent the values that nobody gave.
    """

    currency: str
    capex: str  # host, accelerators and their share of the network
    life_years: int
    cost_of_capital: str  # a year: 0.08
    power_busy_watts: int
    power_idle_watts: int
    pue: str  # power usage effectiveness of the room: 1 or more
    electricity_per_kwh: str
    operations_per_year: str  # staff, support, licences, space
    planned_utilisation: str  # above 0, at most 1
    prefill_tokens_per_second: str | None = None
    decode_tokens_per_second: str | None = None  # None: embeddings, nothing is decoded
    cached_ratio: str = "0.1"  # what a cached input token costs of a prefilled one
    salvage: str = "0"  # what the box sells for at the end of its life
    rent_per_hour: str = "0"
    profile: str | None = None


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with one field, and what would be right."""

    field: str
    message: str
    remedy: str


class Hourly(msgspec.Struct, frozen=True):
    """Money per powered hour, by what it is spent on."""

    capital: Fraction
    operations: Fraction
    rent: Fraction
    energy: Fraction

    @property
    def total(self) -> Fraction:
        return self.capital + self.operations + self.rent + self.energy


class UnitCosts(msgspec.Struct, frozen=True):
    """Money per token."""

    input: Fraction
    cached_input: Fraction
    output: Fraction | None  # None: the box decodes nothing


def faults(profile: Profile) -> tuple[Fault, ...]:
    """All that keeps the profile from being worked out; every other function takes it for sound."""
    written = tuple(_written(profile))
    return written or tuple(_unlikely(profile))


def hourly(profile: Profile, utilisation: Fraction | None = None) -> Hourly:
    """Of one powered hour at `utilisation`; the planned one where none is given."""
    u = _planned(profile) if utilisation is None else utilisation
    growth = (1 + _fraction(profile.cost_of_capital)) ** profile.life_years
    kept = _fraction(profile.capex) - Fraction(_fraction(profile.salvage), growth)
    watts = u * profile.power_busy_watts + (1 - u) * profile.power_idle_watts
    return Hourly(
        capital=Fraction(kept * _recovery(profile, growth), HOURS_PER_YEAR),
        operations=Fraction(_fraction(profile.operations_per_year), HOURS_PER_YEAR),
        rent=_fraction(profile.rent_per_hour),
        energy=watts * _money_per_watt_hour(profile),
    )


def unit_costs(profile: Profile, utilisation: Fraction | None = None) -> UnitCosts:
    """At `utilisation`; the planned one where none is given. ValueError without a prefill rate."""
    u = _planned(profile) if utilisation is None else utilisation
    busy_second = Fraction(hourly(profile, u).total, u * _SECONDS_PER_HOUR)
    if profile.prefill_tokens_per_second is None:
        raise ValueError("prefill_tokens_per_second is not known: measure it with this model")
    prefilled = Fraction(busy_second, _fraction(profile.prefill_tokens_per_second))
    decode = profile.decode_tokens_per_second
    return UnitCosts(
        input=prefilled,
        cached_input=prefilled * _fraction(profile.cached_ratio),
        output=None if decode is None else Fraction(busy_second, _fraction(decode)),
    )


def cost_prices(profile: Profile) -> dict[Meter, int]:
    """Picos per token at the planned utilisation, rounded up: what a cost book holds of the box.

    Cache writes have no price of their own: they are prefilled, and cost what input costs.
    ValueError without a prefill rate, or beyond what a price can be.
    """
    costs = unit_costs(profile)
    exact = {
        Meter.INPUT: costs.input,
        Meter.CACHE_READ: costs.cached_input,
        Meter.OUTPUT: costs.output,
    }
    prices = {m: picos_per_token(cost) for m, cost in exact.items() if cost is not None}
    for meter, picos in prices.items():
        if picos > MAX_PICOS_PER_TOKEN:
            raise ValueError(f"a token of {meter} would cost more than a price can be")
    return prices


def picos_per_token(cost: Fraction) -> int:
    """Whole picos of money per token, rounded up."""
    return -(-cost.numerator * PICOS_PER_UNIT // cost.denominator)


def busy_seconds(profile: Profile, work: Meters) -> Fraction:
    """How long the box is busy with these tokens and nothing else. ValueError without the rates it
    takes.
    """
    if profile.prefill_tokens_per_second is None:
        raise ValueError("prefill_tokens_per_second is not known: measure it with this model")
    cached = work.cache_read * _fraction(profile.cached_ratio)
    prefilled = work.all_input - work.cache_read + cached
    seconds = Fraction(prefilled, _fraction(profile.prefill_tokens_per_second))
    if work.output:
        if profile.decode_tokens_per_second is None:
            raise ValueError("decode_tokens_per_second is not known: measure it with this model")
        seconds += Fraction(work.output, _fraction(profile.decode_tokens_per_second))
    return seconds


def break_even(profile: Profile, work: Meters, hosted_picos: int) -> Fraction | None:
    """The utilisation at which this work costs here what a hosted service asks for it: above it the
    box is cheaper. None: it never is, however busy.

    Cost falls with utilisation: [fixed + idle + u x (busy - idle)] / (3600 u) x seconds = hosted.
    """
    seconds = busy_seconds(profile, work)
    idle, busy = hourly(profile, Fraction(0)).total, hourly(profile, Fraction(1)).total
    left = Fraction(hosted_picos * _SECONDS_PER_HOUR, PICOS_PER_UNIT) - (busy - idle) * seconds
    if left <= 0:
        return None
    u = Fraction(idle * seconds, left)
    return u if u <= 1 else None


def kwh_per_million(profile: Profile, tokens_per_second: str) -> Fraction:
    """Energy of a million tokens at this rate while the box is busy, the room's share included."""
    kilowatts = Fraction(profile.power_busy_watts, _WATTS_PER_KILOWATT) * _fraction(profile.pue)
    return Fraction(kilowatts * 10**6, _SECONDS_PER_HOUR * _fraction(tokens_per_second))


def kilowatt_hours(profile: Profile, busy_us: int, span_us: int) -> Fraction:
    """What the box drew in a span, the room's share included: so long busy, idle the rest of it."""
    busy_us = min(busy_us, span_us)
    watts_us = busy_us * profile.power_busy_watts + (span_us - busy_us) * profile.power_idle_watts
    drawn = Fraction(watts_us, _WATTS_PER_KILOWATT * _SECONDS_PER_HOUR * 10**6)
    return drawn * _fraction(profile.pue)


def _recovery(profile: Profile, growth: Fraction) -> Fraction:
    """CRF: what of a capital falls to each year, interest included."""
    rate = _fraction(profile.cost_of_capital)
    if not rate:
        return Fraction(1, profile.life_years)
    return Fraction(rate, 1 - Fraction(1, growth))


def _money_per_watt_hour(profile: Profile) -> Fraction:
    price = _fraction(profile.pue) * _fraction(profile.electricity_per_kwh)
    return Fraction(price, _WATTS_PER_KILOWATT)


def _planned(profile: Profile) -> Fraction:
    return _fraction(profile.planned_utilisation)


def _fraction(text: str) -> Fraction:
    return Fraction(parse_decimal(text, _DECIMALS), 10**_DECIMALS)


_DECIMAL_FIELDS: Final = (
    "capex",
    "salvage",
    "cost_of_capital",
    "rent_per_hour",
    "pue",
    "electricity_per_kwh",
    "operations_per_year",
    "planned_utilisation",
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "cached_ratio",
)


def _written(profile: Profile) -> Iterator[Fault]:
    """Faults of form: what is not a number of zero or more, or no currency."""
    for name in _DECIMAL_FIELDS:
        text = getattr(profile, name)
        try:
            negative = text is not None and parse_decimal(text, _DECIMALS) < 0
        except ValueError as fault:
            yield Fault(name, str(fault), "write plain digits, such as 0.35")
            continue
        if negative:
            yield Fault(name, f"{text} is negative", "write zero or more")
    try:
        minor_exponent(profile.currency)
    except ValueError as fault:
        yield Fault("currency", str(fault), "the currency of the tenants whose cost it is")


def _unlikely(profile: Profile) -> Iterator[Fault]:
    """Faults of sense, once every number can be read."""
    yield from _money_faults(profile)
    yield from _box_faults(profile)


def _money_faults(profile: Profile) -> Iterator[Fault]:
    if not 1 <= profile.life_years <= _LONGEST_LIFE_YEARS:
        yield Fault("life_years", f"{profile.life_years} is not a life", "write 1 to 30 years")
    if _fraction(profile.salvage) > _fraction(profile.capex):
        yield Fault("salvage", "it is more than capex", "write what the box sells for at its end")
    for name in ("cost_of_capital", "cached_ratio"):
        if _fraction(getattr(profile, name)) > 1:
            yield Fault(name, "it is more than 1", "write a share, such as 0.08 for 8 %")
    if not any(map(_fraction, (profile.capex, profile.rent_per_hour, profile.operations_per_year))):
        remedy = "give capex, rent_per_hour or operations_per_year"
        yield Fault("capex", "a box that costs nothing would give its tokens away", remedy)


def _box_faults(profile: Profile) -> Iterator[Fault]:
    if not 0 < _planned(profile) <= 1:
        remedy = "write the share of hours in which it is busy, such as 0.35"
        yield Fault("planned_utilisation", "it must be above 0 and at most 1", remedy)
    if _fraction(profile.pue) < 1:
        yield Fault("pue", "it is below 1", "write 1 for an office, about 1.5 for a data centre")
    if not 0 <= profile.power_idle_watts <= profile.power_busy_watts:
        remedy = "write watts at the wall, idle not above busy"
        yield Fault("power_idle_watts", "it must be between 0 and power_busy_watts", remedy)
    for name in ("prefill_tokens_per_second", "decode_tokens_per_second"):
        text = getattr(profile, name)
        if text is not None and not _fraction(text):
            remedy = "measure it with the box doing nothing else, or leave it out"
            yield Fault(name, "a rate of 0 never ends", remedy)
