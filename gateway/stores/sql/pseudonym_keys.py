"""The keys that tenants' end users are hashed with: one a version, sealed. The newest hashes."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, delete, func, select

from gateway import clock, ids
from gateway.pseudonyms import Pseudonyms, new_key
from gateway.stores.sql.end_user_tables import end_users, pseudonym_keys
from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import PseudonymKey
from gateway.stores.sql.seal import Sealer

_RECORDS: Final = Records(pseudonym_keys, PseudonymKey)


def newest(connection: Connection) -> tuple[PseudonymKey, ...]:
    """Of every tenant that has any."""
    of = pseudonym_keys.c
    last = select(of.tenant_id, func.max(of.key_version).label("last")).group_by(of.tenant_id)
    last_of = last.subquery()
    query = select(pseudonym_keys).join(
        last_of, (of.tenant_id == last_of.c.tenant_id) & (of.key_version == last_of.c.last)
    )
    return _RECORDS.rows(connection.execute(query).mappings().all())


def of_tenant(connection: Connection, tenant_id: str) -> tuple[PseudonymKey, ...]:
    """From the first version to the last."""
    found = _RECORDS.all(connection, tenant_id=tenant_id)
    return tuple(sorted(found, key=lambda each: each.key_version))


def ensure(connection: Connection, sealer: Sealer, tenant_id: str) -> None:
    """The tenant has a key. In a transaction that changes configuration: one at a time."""
    if not of_tenant(connection, tenant_id):
        add(connection, sealer, tenant_id)


def add(connection: Connection, sealer: Sealer, tenant_id: str) -> PseudonymKey:
    """The next version, in force at once. As `ensure`."""
    known = of_tenant(connection, tenant_id)
    key_id = ids.new("pseudonymkey")
    return _RECORDS.add(
        connection,
        PseudonymKey(
            id=key_id,
            tenant_id=tenant_id,
            key_version=known[-1].key_version + 1 if known else 1,
            credential_sealed=sealer.seal(key_id, new_key()),
            created_at_us=clock.now_us(),
        ),
    )


def destroy(connection: Connection, tenant_id: str, before_version: int) -> None:
    """The versions before this one, and what they hashed."""
    of = pseudonym_keys.c
    old = (of.tenant_id == tenant_id) & (of.key_version < before_version)
    connection.execute(delete(pseudonym_keys).where(old))
    known = f"{before_version}:%"
    theirs = (end_users.c.tenant_id == tenant_id) & end_users.c.pseudonym.not_like(known)
    connection.execute(delete(end_users).where(theirs))


def opened(sealer: Sealer, keys: Iterable[PseudonymKey]) -> list[Pseudonyms]:
    """SealError where one was sealed with another METERHOUSE_SECRET_KEY."""
    return [
        Pseudonyms.opened(key.key_version, sealer.unseal(key.id, key.credential_sealed))
        for key in keys
    ]


def forget(connection: Connection, tenant_id: str) -> None:
    """With the tenant, which nothing was ever booked of."""
    for table in (end_users, pseudonym_keys):
        connection.execute(delete(table).where(table.c.tenant_id == tenant_id))
