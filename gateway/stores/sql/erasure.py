"""Erasing one end user: what links the name to the ledger goes, and what was sealed stays.

A row without a subject is kept for a while, so that what had been asked before is nobody's however
late it is booked; `forget` takes those away.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.stores.sql.end_user_tables import end_users
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.tables import usage_rows

KEPT_US: Final = 30 * 86_400_000_000  # that it was erased: longer than anything waits to be booked
_AT_ONCE: Final = 500


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """What subjects have used of one currency, in picos."""

    currency: str
    requests: int
    charge_picos: int


def subjects(connection: Connection, tenant_id: str, pseudonyms: Sequence[str]) -> list[str]:
    """What the ledger has instead of these, from the oldest key on."""
    of = end_users.c
    query = select(of.pseudonym, of.subject).where(
        of.tenant_id == tenant_id, of.pseudonym.in_(pseudonyms), of.subject.is_not(None)
    )
    found = {row.pseudonym: row.subject for row in connection.execute(query)}
    return [found[each] for each in pseudonyms if each in found]


def pseudonym_of(connection: Connection, tenant_id: str, subject: str) -> str | None:
    """What is hashed to the subject; None: nothing, or nothing any more."""
    of = end_users.c
    query = select(of.pseudonym).where(of.tenant_id == tenant_id, of.subject == subject)
    return connection.scalar(query)


def erase(connection: Connection, tenant_id: str, pseudonyms: Collection[str], now_us: int) -> None:
    """Nothing leads to their subjects any more. What is admitted later makes new ones."""
    insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    gone = {"subject": None, "erased_at_us": now_us}
    for pseudonym in sorted(pseudonyms):
        made = insert(end_users).values(pseudonym=pseudonym, tenant_id=tenant_id, **gone)
        mine = end_users.c.tenant_id == tenant_id
        connection.execute(
            made.on_conflict_do_update(index_elements=["pseudonym"], set_=gone, where=mine)
        )


def amounts(connection: Connection, subjects: Collection[str]) -> list[Amount]:
    """By currency."""
    of = usage_rows.c
    charge = exact_sum(connection.dialect.name, of.charge_picos)
    query = (
        select(of.currency, func.count(of.request_id.distinct()), *charge)
        .where(of.end_user.in_(subjects))
        .group_by(of.currency)
        .order_by(of.currency)
    )
    return [
        Amount(currency=currency, requests=int(requests), charge_picos=whole(high, low))
        for currency, requests, high, low in connection.execute(query)
    ]


def forget(engine: Engine, before_us: int) -> int:
    """Some of those who were erased before, and asked nothing since; how many."""
    of = end_users.c
    old = of.subject.is_(None) & (of.erased_at_us < before_us)
    with transaction(engine) as connection:
        found = connection.scalars(select(of.pseudonym).where(old).limit(_AT_ONCE)).all()
        if found:
            connection.execute(delete(end_users).where(of.pseudonym.in_(found), old))
    return len(found)
