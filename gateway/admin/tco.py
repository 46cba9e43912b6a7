"""What hardware of our own costs: a backend's `tco`, and the cost prices that follow from it.

The prices are ordinary versions of the cost book: they begin when the profile is written, stay when
it is taken away, and an older one is never touched. A price of one upstream model goes before them.
"""

import hashlib
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.boxes import BOXES, filled
from billing.meters import Meter
from billing.prices import amount_per_million
from billing.tco import Profile, cost_prices, faults
from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.operation import Call
from gateway.admin.problems import Fault, ProblemError, invalid, summary
from gateway.stores.sql import prices, rows

SOURCE: Final = "tco"  # how the source of a price that follows from a profile begins

Watts = Annotated[int, Meta(ge=0, le=10**7)]
Years = Annotated[int, Meta(ge=1, le=30)]


class Tco(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is left out is what the documented box `profile` has; `meterhouse tco` shows them all.

    The token rates are those of the model it serves, with the box doing nothing else: measured.
    """

    profile: fields.Slug | None = None
    currency: fields.Currency | None = None
    capex: fields.Decimal | None = None
    salvage: fields.Decimal | None = None
    life_years: Years | None = None
    cost_of_capital: fields.Decimal | None = None
    rent_per_hour: fields.Decimal | None = None
    power_busy_watts: Watts | None = None
    power_idle_watts: Watts | None = None
    pue: fields.Decimal | None = None
    electricity_per_kwh: fields.Decimal | None = None
    operations_per_year: fields.Decimal | None = None
    planned_utilisation: fields.Decimal | None = None
    prefill_tokens_per_second: fields.Decimal | None = None
    decode_tokens_per_second: fields.Decimal | None = None
    cached_ratio: fields.Decimal | None = None


def resolved(body: Tco | None) -> Profile | None:
    """The whole profile. 422 names every field that is missing or cannot be, and what to write."""
    if body is None:
        return None
    if body.profile is not None and body.profile not in BOXES:
        remedy = f"one of {', '.join(BOXES)}, or none with every field given"
        raise invalid("tco.profile", f"there is no box {body.profile!r}", remedy)
    try:
        profile = filled(body.profile, _given(body))
    except ValueError as missing:
        raise _missing(str(missing).split(", ")) from None
    found = [Fault(f"tco.{each.field}", each.message, each.remedy) for each in faults(profile)]
    if found:
        raise ProblemError(422, "invalid_value", summary(found), found)
    if profile.prefill_tokens_per_second is None:
        remedy = "measure it with the model it serves and nothing else running; see meterhouse tco"
        raise invalid("tco.prefill_tokens_per_second", "no price follows without it", remedy)
    fields.checked("tco.prefill_tokens_per_second", cost_prices, profile)
    return profile


def _given(body: Tco) -> dict[str, Any]:
    return {name: each for name, each in msgspec.structs.asdict(body).items() if each is not None}


def _missing(names: list[str]) -> ProblemError:
    remedy = f"give it, or name a profile that lends it: {', '.join(BOXES)}"
    found = [Fault(f"tco.{name}", "it is given nowhere", remedy) for name in names]
    return ProblemError(422, "invalid_value", summary(found), found)


def book(
    call: Call, connection: Connection, before: rows.Backend | None, backend: rows.Backend
) -> None:
    """The cost prices of the backend's profile, where it is another than before. From now on, or
    from when it begins: what was rated stays as it was.
    """
    profile = backend.tco
    if profile is None or (before is not None and before.tco == profile):
        return
    booked = prices.RECORDS.all(
        connection, book="cost", backend_id=backend.id, upstream_model=None, state="approved"
    )
    foreign = next((each.currency for each in booked if each.currency != profile.currency), None)
    if foreign is not None:
        remedy = f"keep {foreign}, or make another backend"
        raise invalid("tco.currency", f"this backend's cost prices are in {foreign}", remedy)
    begins = (clock.now_us(), backend.tco_from_us or 0)
    from_us = max(*begins, *(each.effective_from_us + 1 for each in booked))
    latest = {each.meter: each for each in sorted(booked, key=lambda p: p.effective_from_us)}
    for meter, picos in cost_prices(profile).items():
        price = _price(backend, profile, meter, amount_per_million(picos), from_us)
        if meter not in latest or latest[meter].amount_per_million != price.amount_per_million:
            call.changed(connection, "prices", None, price)
            prices.RECORDS.add(connection, price)


def _price(
    backend: rows.Backend, profile: Profile, meter: Meter, amount: str, from_us: int
) -> rows.Price:
    return rows.Price(
        id=ids.new("price"),
        book="cost",
        backend_id=backend.id,
        meter=meter.value,
        amount_per_million=amount,
        currency=profile.currency,
        effective_from_us=from_us,
        source=f"{SOURCE} {profile.profile or 'own figures'} sha256:{digest(profile)}",
        created_at_us=from_us,
    )


def digest(profile: Profile) -> str:
    """Names the profile that a price came from; the audit chain holds the profile itself."""
    return hashlib.sha256(msgspec.json.encode(profile, order="deterministic")).hexdigest()[:16]
