"""Prices: effective-dated versions. An approved one never changes; a new one supersedes it."""

from typing import Final

from sqlalchemy import Connection

from gateway.stores.sql.records import Records, first_in_use
from gateway.stores.sql.rows import Price
from gateway.stores.sql.tables import prices, rollups

RECORDS: Final = Records(prices, Price)


def twin(connection: Connection, price: Price) -> Price | None:
    """An approved price for the same subject and meter from the same instant on."""
    found = RECORDS.all(
        connection,
        book=price.book,
        model=price.model,
        tenant_id=price.tenant_id,
        backend_id=price.backend_id,
        upstream_model=price.upstream_model,
        meter=price.meter,
        effective_from_us=price.effective_from_us,
        state="approved",
    )
    return next((each for each in found if each.id != price.id), None)


def in_use(connection: Connection, price: Price) -> str | None:
    """Usage that an approved price may have rated; None when the price may go."""
    if price.state != "approved":
        return None
    hour_us = 3_600_000_000
    since = rollups.c.bucket_us >= price.effective_from_us - hour_us  # buckets begin earlier
    if price.book == "cost":
        return first_in_use(
            connection, ("usage rated with it", since & (rollups.c.backend_id == price.backend_id))
        )
    subject = rollups.c.model == price.model
    if price.tenant_id is not None:
        subject &= rollups.c.tenant_id == price.tenant_id
    return first_in_use(connection, ("usage rated with it", since & subject))
