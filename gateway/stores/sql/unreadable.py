"""Whoever tampers may write anything into a row: what cannot be read is a fault that names it, and
not the end of a check.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

# What SQLite says of a value: that it overflows, or, without a name, that it is no text.
_OF_A_VALUE: Final = ("", "SQLITE_ERROR")
_LONGEST: Final = 200


def looked_at(what: str, look: Callable[[], Iterable[str]]) -> Iterator[str]:
    """The faults that `look` finds, and that it could not go on. An error of the database itself,
    or its interruption, is raised.
    """
    try:
        yield from look()
    except SQLAlchemyError as fault:
        if not _is_of_a_value(fault):
            raise
        yield f"{what} cannot be read: {said(fault)}"
    except Exception as fault:  # noqa: BLE001 - there is no list of what somebody may have written
        yield f"{what} cannot be read: {said(fault)}"


def said(fault: Exception) -> str:
    first = str(fault).partition("\n")[0]
    return f"{type(fault).__name__}: {first}"[:_LONGEST]


def _is_of_a_value(fault: SQLAlchemyError) -> bool:
    origin = fault.orig if isinstance(fault, DBAPIError) else None
    return (
        isinstance(origin, sqlite3.Error) and getattr(origin, "sqlite_errorname", "") in _OF_A_VALUE
    )
