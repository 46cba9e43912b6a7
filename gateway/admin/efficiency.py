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
    """An estimate from the profile's watts, the room's share included; never billed. `from` as in
    `money`.
    """

    from_: str = msgspec.field(name="from")
    kwh: str
    kwh_per_million_tokens: str | None
    kwh_per_million_output_tokens: str | None


class PartView(msgspec.Struct, frozen=True, kw_only=True):
    """`account`: `idle`, or the id of a team."""

    account: str
    amount: str


class MoneyView(msgspec.Struct, frozen=True, kw_only=True):
    """`actual` = `absorbed` by the tokens' cost prices + `variance`; `parts` add up to the last.
    `from`: later than the report's where the `tco` counts only since then.
    """

    from_: str = msgspec.field(name="from")
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


class _Did(msgspec.Struct, frozen=True):
    """What the backend did in a span."""

    span_us: tuple[int, int]
    minutes: Sequence[Minute]
    shares: Sequence[Share]

    @property
    def busy_us(self) -> int:
        return sum(each.busy_us for each in self.minutes)


class _Seen(msgspec.Struct, frozen=True):
    """`costed`: the part of it in which the box has a cost."""

    backend: rows.Backend
    whole: _Did
    costed: _Did | None


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

    def did(since_us: int) -> _Did:
        shares = worked.shares(connection, backend_id, since_us, to_us)
        return _Did((since_us, to_us), minutes(found, since_us, to_us), shares)

    whole, begins_us = did(from_us), _costs_us(backend, from_us)
    if begins_us is None or begins_us >= to_us:
        return _Seen(backend, whole, None)
    return _Seen(backend, whole, whole if begins_us == from_us else did(begins_us))


def _costs_us(backend: rows.Backend, from_us: int) -> int | None:
    """The first whole minute from `from_us` on in which the box has a cost; None: it has none."""
    if backend.tco is None or backend.tco_from_us is None:
        return None
    begins_us = backend.tco_from_us
    return max(from_us, begins_us - begins_us % MINUTE_US)


def _there_us(connection: Connection, backend: rows.Backend, from_us: int, to_us: int) -> int:
    """Where the span begins: not before the backend was made, first had a cost, or was first seen
    at work.
    """
    made_us = backend.created_at_us
    if backend.tco_from_us is not None:
        made_us = min(made_us, backend.tco_from_us)
    if made_us <= from_us:
        return from_us
    first = list(worked.works(connection, backend.id, from_us, to_us, 1))
    there_us = min([made_us, *(each.started_us for each in first)])
    there_us -= there_us % MINUTE_US
    return max(from_us, min(there_us, to_us - MINUTE_US))


def _view(seen: _Seen, rule: Literal["platform", "busy", "even"]) -> EfficiencyView:
    whole, costed, profile = seen.whole, seen.costed, seen.backend.tco
    (from_us, to_us), busy_us = whole.span_us, whole.busy_us
    inputs, outputs = _tokens(whole)
    ratio = _CACHED_RATIO if profile is None else Fraction(profile.cached_ratio)
    return EfficiencyView(
        backend_id=seen.backend.id,
        from_=clock.rfc3339(from_us),
        to=clock.rfc3339(to_us),
        attempts=sum(each.attempts for each in whole.shares),
        input_tokens=inputs,
        output_tokens=outputs,
        busy_seconds=_text(Fraction(busy_us, _SECOND_US), 3),
        utilisation=_text(Fraction(busy_us, to_us - from_us)),
        input_tokens_per_second=_per_second(inputs, busy_us),
        output_tokens_per_second=_per_second(outputs, busy_us),
        fitted=_fitted(fit(whole.minutes, ratio)),
        assumed=None if profile is None else _assumed(profile),
        energy=None if profile is None or costed is None else _energy(profile, costed),
        money=None if profile is None or costed is None else _money(profile, costed, rule),
    )


def _tokens(did: _Did) -> tuple[int, int]:
    """Input and output."""
    inputs = sum(each.input_tokens for each in did.shares)
    return inputs, sum(each.output_tokens for each in did.shares)


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


def _energy(profile: Profile, did: _Did) -> EnergyView:
    (start_us, end_us), (inputs, outputs) = did.span_us, _tokens(did)
    kwh = kilowatt_hours(profile, did.busy_us, end_us - start_us)
    return EnergyView(
        from_=clock.rfc3339(start_us),
        kwh=_text(kwh),
        kwh_per_million_tokens=_per_million(kwh, inputs + outputs),
        kwh_per_million_output_tokens=_per_million(kwh, outputs),
    )


def _money(profile: Profile, did: _Did, rule: Literal["platform", "busy", "even"]) -> MoneyView:
    """Of teams that pay in the currency of the profile; nobody else has a cost price here."""
    mine = [each for each in did.shares if each.currency == profile.currency]
    start_us, end_us = did.span_us
    cost = sum(each.cost_picos for each in mine)
    found = absorbed(profile, end_us - start_us, did.busy_us, cost)
    parts = spread(found.variance_picos, rule, {each.team_id: each.took_us for each in mine})
    return MoneyView(
        from_=clock.rfc3339(start_us),
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
