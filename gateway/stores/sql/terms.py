"""The terms of a tenant's invoices: one row each, or the defaults."""

import msgspec
from sqlalchemy import Connection, select

from billing.terms import Terms
from gateway.stores.sql.invoice_tables import billing_terms

_DECODER = msgspec.json.Decoder(Terms)
_ENCODER = msgspec.json.Encoder(order="deterministic")


class TenantTerms(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is the tenant's; version 0: nobody has set any."""

    id: str
    terms: Terms
    version: int = 0
    four_eyes_ended_by: str | None = None  # id of the principal who last did


def of(connection: Connection, tenant_id: str) -> TenantTerms:
    row = connection.execute(select(billing_terms).filter_by(tenant_id=tenant_id)).one_or_none()
    if row is None:
        return TenantTerms(id=tenant_id, terms=Terms())
    return TenantTerms(
        id=tenant_id,
        terms=_DECODER.decode(row.terms),
        version=row.version,
        four_eyes_ended_by=row.four_eyes_ended_by,
    )


def put(
    connection: Connection, before: TenantTerms, terms: Terms, by: str | None = None
) -> TenantTerms:
    """`before` is what was read in the same transaction, with the tenant locked."""
    ended_by = before.four_eyes_ended_by
    if terms.four_eyes or before.terms.four_eyes:
        ended_by = None if terms.four_eyes else by
    after = TenantTerms(
        id=before.id, terms=terms, version=before.version + 1, four_eyes_ended_by=ended_by
    )
    values = {
        "terms": _ENCODER.encode(terms).decode(),
        "version": after.version,
        "four_eyes_ended_by": ended_by,
    }
    if before.version == 0:
        connection.execute(billing_terms.insert().values(tenant_id=before.id, **values))
    else:
        same = billing_terms.c.tenant_id == before.id
        connection.execute(billing_terms.update().where(same).values(**values))
    return after


def forget(connection: Connection, tenant_id: str) -> None:
    """With the tenant, which nothing was ever billed to."""
    connection.execute(billing_terms.delete().filter_by(tenant_id=tenant_id))
