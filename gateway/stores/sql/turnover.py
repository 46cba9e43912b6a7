"""How secrets follow one another, of keys and of admin tokens alike: an owner has at most two that
live.
"""

from typing import Any

from sqlalchemy import Column, Connection, Table, update


class Turnover:
    """The secrets of one table; `owner` is the column that says whose they are."""

    def __init__(self, table: Table, owner: Column[Any]) -> None:
        self._table = table
        self._owner = owner

    def retire(self, connection: Connection, owner_id: str, now_us: int, until_us: int) -> None:
        """The secret in use lives on until `until_us`; those already on their way out go now."""
        secrets = self._table.c
        live = (self._owner == owner_id) & (secrets.revoked_at_us.is_(None))
        ending = secrets.expires_at_us.is_not(None)
        connection.execute(update(self._table).where(live, ending).values(revoked_at_us=now_us))
        connection.execute(update(self._table).where(live, ~ending).values(expires_at_us=until_us))

    def revoke(self, connection: Connection, owner_id: str, at_us: int) -> None:
        live = self._table.c.revoked_at_us.is_(None)
        connection.execute(
            update(self._table).where(self._owner == owner_id, live).values(revoked_at_us=at_us)
        )
