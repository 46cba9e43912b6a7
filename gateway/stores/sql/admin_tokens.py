"""Admin tokens, and their secrets as keyed hashes. A token lives on while its secrets rotate."""

from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection

from gateway.stores.sql.admin_tables import admin_token_secrets, admin_tokens
from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import AdminToken, AdminTokenSecret
from gateway.stores.sql.turnover import Turnover

RECORDS: Final = Records(admin_tokens, AdminToken)
SECRETS: Final = Records(admin_token_secrets, AdminTokenSecret)
TURNOVER: Final = Turnover(admin_token_secrets, admin_token_secrets.c.token_id)


class Known(NamedTuple):
    """A token as one of its secrets finds it. Whether both still count is for the caller."""

    token: AdminToken
    secret: AdminTokenSecret


def known(connection: Connection, public_id: str) -> Known | None:
    secret = SECRETS.one(connection, public_id=public_id)
    token = None if secret is None else RECORDS.one(connection, id=secret.token_id)
    return None if secret is None or token is None else Known(token, secret)


def take_leave(connection: Connection, token: AdminToken) -> None:
    """What comes before a token is deleted: its secrets go."""
    SECRETS.remove(connection, token_id=token.id)


def reference(kind: str, scope_id: str) -> tuple[str, ColumnElement[bool]]:
    """For `records.first_in_use`: the tokens of a tenant, or of one team."""
    if kind == "tenant":
        return "admin tokens", admin_tokens.c.tenant_id == scope_id
    mine = (admin_tokens.c.scope_kind == kind) & (admin_tokens.c.scope_id == scope_id)
    return "admin tokens", mine
