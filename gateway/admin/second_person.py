"""Who may approve what somebody else wrote: not he himself, by whatever token."""

from typing import Final

from sqlalchemy import Connection

from gateway.admin.principal import BOOTSTRAP, Principal
from gateway.admin.problems import conflict
from gateway.stores.sql import admin_tokens

_FOUR_EYES: Final = (
    "who drafted it does not approve it, nor does a token that he made or renewed: ask a colleague "
    "whose token is the installation's to give, or draft it anew where the drafter's token is gone"
)


def is_another(connection: Connection, wrote: str | None, by: Principal) -> bool:
    """The token of the installation always is: it can make itself any other."""
    if by == BOOTSTRAP or wrote in {None, BOOTSTRAP.id}:
        return True
    return not admin_tokens.is_of_one_hand(connection, wrote, by.id)


def require_another(connection: Connection, wrote: str | None, by: Principal, why: str) -> None:
    """409 for whoever wrote it."""
    if not is_another(connection, wrote, by):
        raise conflict("four_eyes", f"{why}; {_FOUR_EYES}")
