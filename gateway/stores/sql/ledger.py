"""Postings: the double entry of every booked attempt. Append-only; balances are sums over them."""

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, select

from billing.ledger import Posting
from billing.ledger import postings as postings_of
from billing.usage import UsageEvent
from gateway.stores.sql.bulk import append
from gateway.stores.sql.engine import reading
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.tables import postings


def post(connection: Connection, events: Sequence[UsageEvent]) -> list[Posting]:
    """The postings of events that have just been booked; each must be new."""
    new = [posting for event in events for posting in postings_of(event)]
    rows = [
        (p.event_id, p.kind, p.account, p.tenant_id, p.amount_picos, p.currency, p.at_us)
        for p in new
    ]
    append(connection, postings, rows)
    return new


def balances(engine: Engine, tenant_id: str) -> dict[tuple[str, str], int]:
    """(account, currency) -> picos, debit positive. All balances of one currency add up to zero."""
    columns = (postings.c.account, postings.c.currency)
    with reading(engine) as connection:
        high, low = exact_sum(connection.dialect.name, postings.c.amount_picos)
        found = connection.execute(
            select(*columns, high, low).where(postings.c.tenant_id == tenant_id).group_by(*columns)
        )
        return {(account, currency): whole(h, lo) for account, currency, h, lo in found}
