"""Sums of money that cannot overflow: SQLite adds in 64 bits, so high and low parts apart. And what
it cannot hold in one row, refused before it is written.
"""

from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, cast, func, literal, type_coerce
from sqlalchemy.types import Numeric

from billing.money import format_minor, format_picos

_PART: Final = 10**9
MOST_PICOS: Final = 2**63 - 1  # of one row on SQLite, either sign
MOST_MINOR: Final = 2**63 - 1  # of one printed amount on either database, either sign


class TooLargeError(OverflowError):
    """One amount is more than this database holds. The message names it and the way out."""


def most_picos(dialect: str) -> int | None:
    """What a row of the database has room for, either sign; None: whatever can be asked for."""
    return MOST_PICOS if dialect == "sqlite" else None


def require_room(dialect: str, picos: int, what: str) -> None:
    """TooLargeError where a row of the database cannot hold the amount."""
    most = most_picos(dialect)
    if most is not None and abs(picos) > most:
        raise TooLargeError(
            f"{what} comes to {format_picos(picos)}, and SQLite holds {format_picos(MOST_PICOS)} "
            "at most: keep the ledger in PostgreSQL, which has room for it"
        )


def require_statable(minor: int, currency: str, what: str) -> None:
    """TooLargeError where an invoice cannot state so many minor units, whatever keeps it."""
    if abs(minor) > MOST_MINOR:
        most = format_minor(MOST_MINOR, currency)
        raise TooLargeError(
            f"{what} comes to {format_minor(minor, currency)} {currency}, and an invoice states "
            f"{most} at most: look at the prices, the minimum and the exchange rate behind it"
        )


def exact_sum(
    dialect: str, column: ColumnElement[Any]
) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Two sums to select; `whole` puts what comes back together. Both are NULL over no rows."""
    if dialect == "postgresql":
        return func.sum(type_coerce(column, Numeric(38, 0))), cast(literal(0), Integer)
    picos = type_coerce(column, Integer)
    return func.sum(picos.op("/")(_PART)), func.sum(picos.op("%")(_PART))


def comes_to_something(dialect: str, column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether the sum of the column is not 0. What is beyond 64 bits becomes a float, but no 0."""
    high, low = exact_sum(dialect, column)
    return high * _PART + low != 0 if dialect != "postgresql" else high != 0


def whole(high: Any, low: Any) -> int:
    """The sum in picos from the two selected parts, whichever database they come from."""
    if type(high) is int:
        return high * _PART + int(low or 0)
    return int(high or 0) + int(low or 0)
