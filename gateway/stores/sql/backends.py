"""Backends: where inference runs, with the sealed credential."""

from typing import Final

from sqlalchemy import Connection

from gateway.stores.sql import models
from gateway.stores.sql.records import Records, first_in_use
from gateway.stores.sql.rows import Backend
from gateway.stores.sql.tables import backends, prices

RECORDS: Final = Records(backends, Backend)


def in_use(connection: Connection, backend_id: str) -> str | None:
    """What still refers to the backend, in words; None when it may go."""
    for model in models.RECORDS.all(connection):
        if any(target.backend_id == backend_id for target in model.targets):
            return f"model {model.name!r}"
    return first_in_use(connection, ("prices", prices.c.backend_id == backend_id))
