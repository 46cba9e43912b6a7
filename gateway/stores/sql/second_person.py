"""The one rule of four eyes: who drafted something does not put it in force, by whatever token."""

from typing import Final

from sqlalchemy import Connection

from gateway.stores.sql import admin_tokens

INSTALLATION: Final = "bootstrap"  # the id of the installation's own token

_ASK: Final = (
    "who drafted it does not put it in force, nor does a token that he made or renewed: ask a "
    "colleague whose token is the installation's to give, or, where the drafter's token is gone, "
    "have it withdrawn and drafted anew"
)


class SecondPersonError(Exception):
    """Somebody else has to do it. The message says why, and who may."""


def is_another(connection: Connection, wrote: str | None, by: str, *, agreed: bool = False) -> bool:
    """Whether `by` is somebody else than who `wrote` it; both are ids of principals. The token of
    the installation can make itself any other, so it may put in force what it drafted itself, but
    where people `agreed` on the rule.
    """
    if by == INSTALLATION:
        return not agreed or wrote != INSTALLATION
    if wrote in {None, INSTALLATION}:
        return True
    return not admin_tokens.is_of_one_hand(connection, wrote, by)


def require_another(
    connection: Connection, wrote: str | None, by: str, why: str, *, agreed: bool = False
) -> None:
    """SecondPersonError for whoever wrote it."""
    if not is_another(connection, wrote, by, agreed=agreed):
        raise SecondPersonError(f"{why}; {_ASK}")
