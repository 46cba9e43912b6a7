"""What the journal says of a span of time: amounts by account."""

from collections.abc import Iterator
from typing import Final

import msgspec
from sqlalchemy import Connection, case, func, literal, select

from billing.rollups import BUCKET_US
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.tables import postings

_MANY: Final = ("charge", "cost", "idle")  # an entry a request, or a tenant


class Posted(msgspec.Struct, frozen=True):
    """Postings of a quarter of an hour, kind and account, added up. `entry` is the invoice's id;
    empty where entries are many.
    """

    bucket_us: int
    kind: str
    entry: str
    account: str
    tenant_id: str
    currency: str
    picos: int
    entries: int


def posted(
    connection: Connection, start_us: int, end_us: int, tenant_id: str | None
) -> Iterator[Posted]:
    """In [start, end), of one tenant or of all. Every quarter, kind, entry and currency adds up to
    nothing.
    """
    of = postings.c
    bucket = of.at_us - of.at_us % BUCKET_US
    entry = case((of.kind.in_(_MANY), literal("")), else_=of.event_id)
    keys = [
        each.label(f"key{n}")
        for n, each in enumerate((bucket, of.kind, entry, of.account, of.tenant_id, of.currency))
    ]
    high, low = exact_sum(connection.dialect.name, of.amount_picos)
    query = select(*keys, high, low, func.count()).where(of.at_us >= start_us, of.at_us < end_us)
    if tenant_id is not None:
        query = query.where(of.tenant_id == tenant_id)
    names = [each.name for each in keys]
    found = connection.execute(query.group_by(*names).order_by(*names))
    for bucket_us, kind, of_entry, account, tenant, currency, *sums, entries in found:
        yield Posted(
            int(bucket_us), kind, of_entry, account, tenant, currency, whole(*sums), int(entries)
        )
