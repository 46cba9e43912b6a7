"""Application keys, and their secrets as keyed hashes. A key lives on while its secrets rotate."""

from typing import Final

from sqlalchemy import Connection

from gateway.stores.sql import former_names, scopes
from gateway.stores.sql.former_names import FormerName
from gateway.stores.sql.records import Records, first_in_use
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.rows import Key, KeySecret
from gateway.stores.sql.tables import key_secrets, keys
from gateway.stores.sql.turnover import Turnover

RECORDS: Final = Records(keys, Key)
SECRETS: Final = Records(key_secrets, KeySecret)
TURNOVER: Final = Turnover(key_secrets, key_secrets.c.key_id)


def take_leave(connection: Connection, key: Key) -> None:
    """What comes before a key is deleted: its secrets go, its name is kept."""
    SECRETS.remove(connection, key_id=key.id)
    former = FormerName(id=key.id, tenant_id=key.tenant_id, name=key.name)
    former_names.RECORDS.add(connection, former)


def in_use(connection: Connection, key: Key) -> str | None:
    """What still belongs to the key, in words; None when it may go. Its secrets go with it."""
    return first_in_use(
        connection,
        *scopes.references("key", key.id),
        ("usage", (rolled.c.tenant_id == key.tenant_id) & (rolled.c.key_id == key.id)),
    )
