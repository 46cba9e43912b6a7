"""Grants: more than a budget's amount, until a time. A row stays when the grant is over or taken
back: it says who allowed what, and why.
"""

from typing import Final

from sqlalchemy import Connection, or_

from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import Grant
from gateway.stores.sql.tables import grants

RECORDS: Final = Records(grants, Grant)


def in_force(connection: Connection, now_us: int, **where: str) -> tuple[Grant, ...]:
    """Those that are neither over nor taken back."""
    found = RECORDS.all(connection, revoked_at_us=None, **where)
    return tuple(grant for grant in found if grant.until_us > now_us)


def in_force_at(connection: Connection, at_us: int) -> tuple[Grant, ...]:
    """Those of all budgets that were made by that instant, and neither over nor taken back then."""
    held = or_(grants.c.revoked_at_us.is_(None), grants.c.revoked_at_us > at_us)
    lasting = (grants.c.created_at_us <= at_us, grants.c.until_us > at_us, held)
    return RECORDS.page(connection, {}, only=lasting)
