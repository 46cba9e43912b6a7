"""Discounts: effective-dated; one that has begun never changes, a later one takes its place."""

from typing import Final

from sqlalchemy import Connection

from billing import discounts as billing
from billing.meters import Meter
from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import Discount
from gateway.stores.sql.tables import discounts

RECORDS: Final = Records(discounts, Discount)


def twin(connection: Connection, discount: Discount) -> Discount | None:
    """An approved one of the same tenant, model and meter from the same instant on."""
    found = RECORDS.all(
        connection,
        tenant_id=discount.tenant_id,
        model=discount.model,
        meter=discount.meter,
        effective_from_us=discount.effective_from_us,
        state="approved",
    )
    return next((each for each in found if each.id != discount.id), None)


def discount_of(row: Discount) -> billing.Discount:
    """As billing has it."""
    return billing.Discount(
        id=row.id,
        tenant_id=row.tenant_id,
        percent_e4=billing.parse_percent(row.percent),
        effective_from_us=row.effective_from_us,
        model=row.model,
        meter=None if row.meter is None else Meter(row.meter),
    )
