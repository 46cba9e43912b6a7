"""What a backend did with its time: tokens a second, how busy it was, energy, the rates that fit
what was seen beside those that are assumed, and what of its cost no token bore.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final, Literal

import msgspec
from sqlalchemy import Connection

from billing.idle import IDLE, absorbed, spread
from billing.money import format_decimal, format_picos
from billing.observed import MINUTE_US, Minute, minutes
from billing.rates import SURE_PERCENT, Fitted, Rate, fit
from billing.tco import Profile, kilowatt_hours
from gateway import clock
from gateway.admin import fields
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import invalid, missing
from gateway.admin.roles import Right
from gateway.stores.sql import backends, rows, worked
from gateway.stores.sql.worked import Share

MOST_ATTEMPTS: Final = 100_000  # of a report: what came later is left to another
LONGEST_US: Final = 31 * 1_440 * MINUTE_US

_DAY_US: Final = 1_440 * MINUTE_US
_SECOND_US: Final = 1_000_000
_CACHED_RATIO: Final = Fraction(1, 10)  # where no profile says what a cached token takes
_DECIMALS: Final = 6


class EfficiencyQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From and to are instants, by default the last day; whole minutes count. `spread` says who
    bears what no token did: the platform, teams by busy seconds, or all teams evenly.
    """

    from_: fields.Instant | None = msgspec.field(default=None, name="from")
    to: fields.Instant | None = None
    spread: Literal["platform", "busy", "even"] = "platform"


class RateView(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second, and the bounds of an interval of `sure_percent`."""

    middle: str
    low: str
    high: str | None


class FittedView(msgspec.Struct, frozen=True, kw_only=True):
    """`because`: why a rate is not claimed. `requests_at_once`: the load at which it was seen."""

    prefill_tokens_per_second: RateView | None
    decode_tokens_per_second: RateView | None
    overhead_ms: str  # of a request
    sure_percent: int
    busy_minutes: int
    requests_at_once: str
    because: tuple[str, ...]


class AssumedView(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend's `tco` says, which its cost prices rest on."""

    prefill_tokens_per_second: str | None
    decode_tokens_per_second: str | None
    planned_utilisation: str


class EnergyView(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate from the profile's watts, the room's share included; never billed."""

    kwh: str
    kwh_per_million_tokens: str | None
    kwh_per_million_output_tokens: str | None


class PartView(msgspec.Struct, frozen=True, kw_only=True):
    """`account`: `idle`, or the id of a team."""

    account: str
    amount: str


class MoneyView(msgspec.Struct, frozen=True, kw_only=True):
    """`actual` = `absorbed` by the tokens' cost prices + `variance`; `parts` add up to the last."""

    currency: str
    actual: str
    absorbed: str
    variance: str
    spread: str
    parts: tuple[PartView, ...]


class EfficiencyView(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are per second in which it was busy. `from` is later than asked for where the backend
    was not there yet: what is not there costs nothing and idles none. `to` is earlier where there
    was more than one report takes.
    """

    backend_id: str
    from_: str = msgspec.field(name="from")
    to: str
    attempts: int
    input_tokens: int
    output_tokens: int
    busy_seconds: str
    utilisation: str
    input_tokens_per_second: str | None
    output_tokens_per_second: str | None
    fitted: FittedView
    assumed: AssumedView | None
    energy: EnergyView | None
    money: MoneyView | None


class _Seen(msgspec.Struct, frozen=True):
    backend: rows.Backend
    span_us: tuple[int, int]
    minutes: Sequence[Minute]
    shares: Sequence[Share]


async def _report(call: Call) -> Answer:
    span = _span(call.query)
    seen = await call.read(lambda connection: _seen(connection, call.id, span))
    return Answer(_view(seen, call.query.spread))


def _span(query: EfficiencyQuery) -> tuple[int, int]:
    """Whole minutes, none of them before its end."""
    now_us = clock.now_us()
    to_us = now_us if query.to is None else min(now_us, fields.instant(query.to, "to"))
    to_us -= to_us % MINUTE_US
    from_us = to_us - _DAY_US
    if query.from_ is not None:
        from_us = fields.instant(query.from_, "from")
    from_us += -from_us % MINUTE_US
    if from_us >= to_us:
        raise invalid("from", "the span is empty: `from` must be a minute before `to` and now")
    if to_us - from_us > LONGEST_US:
        raise invalid("from", "the span is longer than 31 days")
    return max(0, from_us), to_us


def _seen(connection: Connection, backend_id: str, span: tuple[int, int]) -> _Seen:
    backend = backends.RECORDS.one(connection, id=backend_id)
    if backend is None:
        raise missing("backend", backend_id)
    from_us, to_us = span
    from_us = _there_us(connection, backend, from_us, to_us)
    found = list(worked.works(connection, backend_id, from_us, to_us, MOST_ATTEMPTS))
    if len(found) == MOST_ATTEMPTS:
        last_us = found[-1].started_us
        to_us = max(from_us + MINUTE_US, last_us - last_us % MINUTE_US)
    return _Seen(
        backend,
        (from_us, to_us),
        minutes(found, from_us, to_us),
        worked.shares(connection, backend_id, from_us, to_us),
    )


def _there_us(connection: Connection, backend: rows.Backend, from_us: int, to_us: int) -> int:
    """Where the span begins: not before the backend was made, or was first seen at work."""
    if backend.created_at_us <= from_us:
        return from_us
    first = list(worked.works(connection, backend.id, from_us, to_us, 1))
    there_us = min([backend.created_at_us, *(each.started_us for each in first)])
    there_us -= there_us % MINUTE_US
    return max(from_us, min(there_us, to_us - MINUTE_US))


def _view(seen: _Seen, rule: Literal["platform", "busy", "even"]) -> EfficiencyView:
    (from_us, to_us), profile = seen.span_us, seen.backend.tco
    busy_us = sum(each.busy_us for each in seen.minutes)
    inputs = sum(each.input_tokens for each in seen.shares)
    outputs = sum(each.output_tokens for each in seen.shares)
    ratio = _CACHED_RATIO if profile is None else Fraction(profile.cached_ratio)
    return EfficiencyView(
        backend_id=seen.backend.id,
        from_=clock.rfc3339(from_us),
        to=clock.rfc3339(to_us),
        attempts=sum(each.attempts for each in seen.shares),
        input_tokens=inputs,
        output_tokens=outputs,
        busy_seconds=_text(Fraction(busy_us, _SECOND_US), 3),
        utilisation=_text(Fraction(busy_us, to_us - from_us)),
        input_tokens_per_second=_per_second(inputs, busy_us),
        output_tokens_per_second=_per_second(outputs, busy_us),
        fitted=_fitted(fit(seen.minutes, ratio)),
        assumed=None if profile is None else _assumed(profile),
        energy=None if profile is None else _energy(profile, seen, busy_us, inputs, outputs),
        money=None if profile is None else _money(profile, seen, busy_us, rule),
    )


def _fitted(found: Fitted) -> FittedView:
    return FittedView(
        prefill_tokens_per_second=_rate(found.prefill),
        decode_tokens_per_second=_rate(found.decode),
        overhead_ms=_text(Fraction(found.overhead_us, 1000), 3),
        sure_percent=SURE_PERCENT,
        busy_minutes=found.minutes,
        requests_at_once=_text(found.at_once, 2),
        because=found.because,
    )


def _rate(found: Rate | None) -> RateView | None:
    if found is None:
        return None
    high = None if found.high is None else _text(found.high, 1)
    return RateView(middle=_text(found.middle, 1), low=_text(found.low, 1), high=high)


def _assumed(profile: Profile) -> AssumedView:
    names = AssumedView.__struct_fields__
    return AssumedView(**{name: getattr(profile, name) for name in names})


def _energy(profile: Profile, seen: _Seen, busy_us: int, inputs: int, outputs: int) -> EnergyView:
    start_us, end_us = seen.span_us
    kwh = kilowatt_hours(profile, busy_us, end_us - start_us)
    return EnergyView(
        kwh=_text(kwh),
        kwh_per_million_tokens=_per_million(kwh, inputs + outputs),
        kwh_per_million_output_tokens=_per_million(kwh, outputs),
    )


def _money(
    profile: Profile, seen: _Seen, busy_us: int, rule: Literal["platform", "busy", "even"]
) -> MoneyView:
    """Of teams that pay in the currency of the profile; nobody else has a cost price here."""
    mine = [each for each in seen.shares if each.currency == profile.currency]
    start_us, end_us = seen.span_us
    cost = sum(each.cost_picos for each in mine)
    found = absorbed(profile, end_us - start_us, busy_us, cost)
    parts = spread(found.variance_picos, rule, {each.team_id: each.took_us for each in mine})
    return MoneyView(
        currency=profile.currency,
        actual=format_picos(found.actual_picos),
        absorbed=format_picos(found.absorbed_picos),
        variance=format_picos(found.variance_picos),
        spread=rule if IDLE not in parts else "platform",
        parts=tuple(
            PartView(account=name, amount=format_picos(each)) for name, each in parts.items()
        ),
    )


def _per_second(tokens: int, busy_us: int) -> str | None:
    return None if not busy_us else _text(Fraction(tokens * _SECOND_US, busy_us), 1)


def _per_million(kwh: Fraction, tokens: int) -> str | None:
    return None if tokens <= 0 else _text(kwh * 10**6 / tokens)


def _text(value: Fraction, decimals: int = _DECIMALS) -> str:
    """Half up; without needless zeros."""
    return format_decimal(int(value * 10**decimals + Fraction(1, 2)), decimals)


def operations() -> list[Operation]:
    return [
        Operation(
            "GET", "/backends/{id}/efficiency", "backends",
            "What a backend did with its time, and what its hardware cost beyond its tokens",
            _report, right=Right.PRICES_READ, query=EfficiencyQuery, answers=EfficiencyView,
            refusals=(404, 422),
        ),
    ]  # fmt: skip
