"""The one translation between configuration Structs (`rows`) and table rows, with the plain writes.

Tuples and Structs are JSON text in the database; everything else stands as it is. Each noun has a
file of its own for what is particular to it; all of them read and write through a `Records` value.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from sqlalchemy import ColumnElement, Connection, Executable, RowMapping, Table, literal, select
from sqlalchemy.exc import IntegrityError

R = TypeVar("R", bound=msgspec.Struct)


class TakenError(Exception):
    """A unique name or scope is in use already."""


class Records(Generic[R]):
    """One table's rows as Structs of one type."""

    def __init__(self, table: Table, kind: type[R]) -> None:
        self.table = table
        self._kind = kind
        hints = get_type_hints(kind)
        self._columns = tuple(hints)
        self._packed = {name: kind for name, hint in hints.items() if (kind := packed_type(hint))}

    def page(
        self,
        connection: Connection,
        where: Mapping[str, Any],
        after: str | None = None,
        limit: int | None = None,
        only: Iterable[ColumnElement[bool]] = (),
        *,
        descending: bool = False,
    ) -> tuple[R, ...]:
        """Rows whose columns equal `where` and that meet all of `only`, ordered by id, from after
        the id `after`.
        """
        beyond, order = following(self.table.c.id, after, descending=descending)
        query = select(self.table).filter_by(**where).where(*only, *beyond).order_by(order)
        if limit is not None:
            query = query.limit(limit)
        return self.rows(connection.execute(query).mappings().all())

    def all(self, connection: Connection, **where: Any) -> tuple[R, ...]:
        query = select(self.table).filter_by(**where).order_by(*self.table.primary_key.columns)
        return self.rows(connection.execute(query).mappings().all())

    def one(self, connection: Connection, **where: Any) -> R | None:
        """The row that equals `where`; None when there is none. `where` names a unique key."""
        found = connection.execute(select(self.table).filter_by(**where)).mappings().one_or_none()
        return None if found is None else self.row(found)

    def exists(self, connection: Connection, **where: Any) -> bool:
        query = select(select(self.table).filter_by(**where).exists())
        return bool(connection.execute(query).scalar_one())

    def add(self, connection: Connection, row: R) -> R:
        """TakenError when a unique key is in use."""
        write(connection, self.table.insert().values(**self._packed_columns(row)))
        return row

    def replace(self, connection: Connection, row: R) -> R:
        """Writes every column of the row with the same primary key. TakenError as for `add`."""
        columns = self._packed_columns(row)
        same = [column == columns[column.name] for column in self.table.primary_key.columns]
        write(connection, self.table.update().where(*same).values(**columns))
        return row

    def remove(self, connection: Connection, **where: Any) -> int:
        """How many rows went."""
        return connection.execute(self.table.delete().filter_by(**where)).rowcount

    def row(self, found: RowMapping) -> R:
        columns = {name: found[name] for name in self._columns}
        for name, kind in self._packed.items():
            if columns[name] is not None:
                columns[name] = msgspec.json.decode(columns[name], type=kind)
        return self._kind(**columns)

    def rows(self, found: Sequence[RowMapping]) -> tuple[R, ...]:
        return tuple(self.row(mapping) for mapping in found)

    def _packed_columns(self, row: R) -> dict[str, Any]:
        columns = {name: getattr(row, name) for name in self._columns}
        for name in self._packed:
            if columns[name] is not None:
                columns[name] = msgspec.json.encode(columns[name]).decode()
        return columns


def following(
    column: ColumnElement[str], after: str | None, *, descending: bool
) -> tuple[tuple[ColumnElement[bool], ...], ColumnElement[str]]:
    """What rows from after `after` on meet, and their order."""
    order = column.desc() if descending else column
    if after is None:
        return (), order
    return (column < after if descending else column > after,), order


def write(connection: Connection, statement: Executable) -> None:
    """TakenError instead of the driver's own error when a unique key is in use."""
    try:
        connection.execute(statement)
    except IntegrityError as fault:
        if _is_unique_violation(fault):
            raise TakenError from fault
        raise


def first_in_use(connection: Connection, *checks: tuple[str, ColumnElement[bool]]) -> str | None:
    """The name of the first check for which a row exists."""
    for name, condition in checks:
        if connection.execute(select(select(literal(1)).where(condition).exists())).scalar_one():
            return name
    return None


def packed_type(hint: Any) -> Any:
    """The tuple or Struct inside a type such as `tuple[X, ...] | None`; None for anything else."""
    for part in (hint, *get_args(hint)):
        if get_origin(part) is tuple or (
            isinstance(part, type) and issubclass(part, msgspec.Struct)
        ):
            return part
    return None


def _is_unique_violation(fault: IntegrityError) -> bool:
    state = getattr(fault.orig, "sqlstate", None)  # PostgreSQL
    name = getattr(fault.orig, "sqlite_errorname", "")
    return state == "23505" or name in {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}
