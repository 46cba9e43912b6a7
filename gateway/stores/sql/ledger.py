"""Postings: the double entry of every booked attempt. Append-only; balances are sums over them."""

from collections.abc import Sequence
from itertools import chain

from msgspec.structs import astuple
from sqlalchemy import Connection, Engine, select

from billing.ledger import postings as postings_of
from billing.usage import UsageEvent
from gateway.stores.sql.bulk import Row, append
from gateway.stores.sql.engine import reading
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.tables import postings


def post(connection: Connection, events: Sequence[UsageEvent]) -> list[list[Row]]:
    """The postings of events that have just been booked, as rows of the table: a list for each
    event. Each must be new.
    """
    # A posting's fields are the table's columns.
    entries = [[astuple(posting) for posting in postings_of(event)] for event in events]
    append(connection, postings, list(chain.from_iterable(entries)))
    return entries


def balances(engine: Engine, tenant_id: str) -> dict[tuple[str, str], int]:
    """(account, currency) -> picos, debit positive. All balances of one currency add up to zero."""
    columns = (postings.c.account, postings.c.currency)
    with reading(engine) as connection:
        high, low = exact_sum(connection.dialect.name, postings.c.amount_picos)
        found = connection.execute(
            select(*columns, high, low).where(postings.c.tenant_id == tenant_id).group_by(*columns)
        )
        return {(account, currency): whole(h, lo) for account, currency, h, lo in found}
