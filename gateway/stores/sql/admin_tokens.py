"""Admin tokens, and their secrets as keyed hashes. A token lives on while its secrets rotate."""

from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection

from gateway import clock
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


def hands(connection: Connection, token_id: str, *, ever: bool) -> frozenset[str]:
    """The token, and those whose holders could use it: a secret is shown to whoever makes it. By
    the secrets that live, or by all it `ever` had.
    """
    found = SECRETS.all(connection, token_id=token_id)
    if not ever:
        now_us = clock.now_us()
        ends = ((each.revoked_at_us, each.expires_at_us) for each in found)
        live = [all(end is None or end > now_us for end in both) for both in ends]
        found = tuple(each for each, lives in zip(found, live, strict=True) if lives)
    makers = (maker for each in found for maker in (each.made_by or "").split())
    return frozenset((token_id, *makers))


def is_of_one_hand(connection: Connection, wrote: str, approves: str) -> bool:
    """Whether who wrote something could approve it himself by this token: also one that he made,
    or gave a new secret, or that made his. So, too, where the token that wrote is gone.
    """
    if wrote == approves or not RECORDS.exists(connection, id=wrote):
        return True
    theirs = hands(connection, wrote, ever=True)
    return not theirs.isdisjoint(hands(connection, approves, ever=False))


def take_leave(connection: Connection, token: AdminToken) -> None:
    """What comes before a token is deleted: its secrets go."""
    SECRETS.remove(connection, token_id=token.id)


def reference(kind: str, scope_id: str) -> tuple[str, ColumnElement[bool]]:
    """For `records.first_in_use`: the tokens of a tenant, or of one team."""
    if kind == "tenant":
        return "admin tokens", admin_tokens.c.tenant_id == scope_id
    mine = (admin_tokens.c.scope_kind == kind) & (admin_tokens.c.scope_id == scope_id)
    return "admin tokens", mine
