"""Whole picos as the databases keep them: BIGINT on SQLite, NUMERIC on PostgreSQL."""

from typing import Any

from sqlalchemy import BigInteger, Numeric, TypeDecorator
from sqlalchemy.engine import Dialect


class Picos(TypeDecorator[int]):
    """An exact integer amount. A float is refused rather than rounded."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        kind = Numeric(38, 0) if dialect.name == "postgresql" else BigInteger()
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: int | None, _dialect: Dialect) -> int | None:
        if value is not None and type(value) is not int:
            raise TypeError(f"money must be a whole number of picos, not {value!r}")
        return value

    def process_result_value(self, value: Any | None, _dialect: Dialect) -> int | None:
        return None if value is None else int(value)
