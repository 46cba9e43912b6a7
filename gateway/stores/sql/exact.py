"""Sums of money that cannot overflow: SQLite adds in 64 bits, so high and low parts apart."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, cast, func, literal, type_coerce
from sqlalchemy.types import Numeric

_PART: Final = 10**9


def exact_sum(
    dialect: str, column: ColumnElement[Any]
) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Two sums to select; `whole` puts what comes back together. Both are NULL over no rows."""
    if dialect == "postgresql":
        return func.sum(type_coerce(column, Numeric(38, 0))), cast(literal(0), Integer)
    picos = type_coerce(column, Integer)
    return func.sum(picos.op("/")(_PART)), func.sum(picos.op("%")(_PART))


def whole(high: Any, low: Any) -> int:
    """The sum in picos from the two selected parts, whichever database they come from."""
    if type(high) is int:
        return high * _PART + int(low or 0)
    return int(high or 0) + int(low or 0)
