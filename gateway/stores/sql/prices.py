"""Prices: effective-dated versions. An approved one never changes; a new one supersedes it."""

from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import Connection

from billing.meters import Meter
from billing.prices import ContextTier, PriceVersion, picos_per_token
from billing.quantity import Mode, Schedule, Step
from billing.service_tiers import ServiceTier
from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import Price
from gateway.stores.sql.tables import prices

RECORDS: Final = Records(prices, Price)


def twin(connection: Connection, price: Price) -> Price | None:
    """An approved price for the same subject, meter, tier and currency from the same instant on."""
    begins_us = price.effective_from_us
    found = of_same_subject(
        connection, price, effective_from_us=begins_us, state="approved", currency=price.currency
    )
    return next((each for each in found if each.id != price.id), None)


def before(connection: Connection, price: Price) -> Price | None:
    """The approved price that this one would follow: of its subject, meter, tier and currency."""
    return _newest(connection, price, price.effective_from_us)


def listed(connection: Connection, price: Price, at_us: int) -> Price | None:
    """What the list asks at an instant for what this price, a contract's, is for."""
    return _newest(connection, replace(price, tenant_id=None), at_us)


def standard(connection: Connection, price: Price, at_us: int) -> Price | None:
    """What is asked at an instant for the same in the standard tier: by its contract, if one says,
    else by the list.
    """
    plain = replace(price, service_tier=ServiceTier.STANDARD.value)
    return _newest(connection, plain, at_us) or listed(connection, plain, at_us)


def _newest(connection: Connection, price: Price, at_us: int) -> Price | None:
    found = of_same_subject(connection, price, state="approved", currency=price.currency)
    earlier = [each for each in found if each.effective_from_us <= at_us]
    return max(
        (each for each in earlier if each.id != price.id),
        key=lambda each: (each.effective_from_us, each.id),
        default=None,
    )


def of_same_subject(connection: Connection, price: Price, **where: Any) -> tuple[Price, ...]:
    """Prices of whatever state and date for what this one is for, its meter and its tier; oldest
    first.
    """
    return RECORDS.all(
        connection,
        book=price.book,
        model=price.model,
        tenant_id=price.tenant_id,
        backend_id=price.backend_id,
        upstream_model=price.upstream_model,
        meter=price.meter,
        service_tier=price.service_tier,
        **where,
    )


def version_of(price: Price) -> PriceVersion:
    """As billing has it."""
    return PriceVersion(
        id=price.id,
        book=price.book,
        model=price.model,
        tenant_id=price.tenant_id,
        backend_id=price.backend_id,
        upstream_model=price.upstream_model,
        meter=Meter(price.meter),
        picos_per_token=picos_per_token(price.amount_per_million),
        currency=price.currency,
        effective_from_us=price.effective_from_us,
        context_tiers=tuple(
            ContextTier(tier.above_tokens, picos_per_token(tier.amount_per_million))
            for tier in price.context_tiers
        ),
        schedule=_schedule(price),
        service_tier=ServiceTier(price.service_tier),
    )


def _schedule(price: Price) -> Schedule | None:
    if price.quantity_tiers is None:
        return None
    steps = [
        Step(tier.above_tokens, picos_per_token(tier.amount_per_million))
        for tier in price.quantity_tiers.tiers
    ]
    mode: Mode = "volume" if price.quantity_tiers.mode == "volume" else "graduated"
    return Schedule(mode, (Step(0, picos_per_token(price.amount_per_million)), *steps))
