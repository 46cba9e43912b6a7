"""The audit chain: who changed what, each row's hash over its content and the hash before it.

A row is appended in the transaction of the change it tells of: there is neither without the other.
What is taken out, put in, changed, or cut off at the end is found by `verify`; a chain that was
remade as a whole is found against an anchor, a (number, hash) that somebody kept elsewhere.
"""

import hashlib
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, insert, select, update

from gateway.stores.sql.admin_tables import audit_head, audit_rows
from gateway.stores.sql.engine import reading
from gateway.stores.sql.records import Records

FORMAT: Final = 1  # the first value hashed: what a row's content is made of
GENESIS: Final = "0" * 64
_PART_ROWS: Final = 2_000


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be told of one change. `before` and `after` are JSON objects of facts, of which
    none is a secret.
    """

    at_us: int
    actor_id: str
    actor_name: str
    role: str
    operation: str
    noun: str
    object_id: str
    tenant_id: str | None = None
    team_id: str | None = None
    before: str | None = None
    after: str | None = None
    address: str
    request_id: str


class AuditRow(Entry, frozen=True, kw_only=True):
    """An entry with its place in the chain."""

    seq: int
    id: str
    prev_hash: str
    hash: str


class Head(msgspec.Struct, frozen=True):
    """The end of the chain: number and hash of its last row; 0 and zeros of an empty one."""

    seq: int
    hash: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a check. `broken_at` is the number of the first row that does not hold."""

    checked: int
    head: Head
    broken_at: int | None = None
    reason: str = ""


RECORDS: Final = Records(audit_rows, AuditRow)
_COLUMNS: Final = tuple(column.name for column in audit_rows.columns)
_HASHED: Final = len(_COLUMNS) - 2  # all before prev_hash and hash
_NOT_ITS_ROW: Final = "it is not the row of the anchor"
_ENCODER: Final = msgspec.json.Encoder()


def append(connection: Connection, entries: Iterable[Entry]) -> None:
    """At the end of the chain, in the caller's transaction. Whoever appends meanwhile waits: take
    no other lock after this one.
    """
    end = head(connection, locked=True)
    for entry in entries:
        values = msgspec.structs.asdict(entry) | {"seq": end.seq + 1, "id": row_id(end.seq + 1)}
        content = [values[name] for name in _COLUMNS[:_HASHED]]
        hashed = row_hash(end.hash, content)
        connection.execute(insert(audit_rows).values(**values, prev_hash=end.hash, hash=hashed))
        end = Head(end.seq + 1, hashed)
        connection.execute(update(audit_head).values(seq=end.seq, hash=end.hash))


def head(connection: Connection, *, locked: bool = False) -> Head:
    query = select(audit_head.c.seq, audit_head.c.hash)
    seq, hashed = connection.execute(query.with_for_update() if locked else query).one()
    return Head(int(seq), str(hashed))


def row_id(seq: int) -> str:
    return f"audit_{seq:026d}"


def row_hash(prev_hash: str, content: Iterable[Any]) -> str:
    """SHA-256 over the hash before, as bytes, and the content: a JSON array of FORMAT and every
    column in the order of the table, without spaces.
    """
    return hashlib.sha256(
        bytes.fromhex(prev_hash) + _ENCODER.encode([FORMAT, *content])
    ).hexdigest()


def verify(engine: Engine, anchor: Head | None = None) -> Verified:
    """From the first row to the head, as of one instant; memory does not grow with the chain."""
    with reading(engine) as connection, closing(_rows(connection)) as rows:
        end = head(connection)
        last = Head(0, GENESIS)
        for row in rows:
            reason = _fault(row, last)
            if not reason and anchor is not None and anchor.seq == row[0]:
                reason = "" if row[-1] == anchor.hash else _NOT_ITS_ROW
            if reason:
                return Verified(checked=last.seq, head=end, broken_at=last.seq + 1, reason=reason)
            last = Head(row[0], row[-1])
    return _ended(last, end, anchor)


def _ended(last: Head, end: Head, anchor: Head | None) -> Verified:
    if last != end:
        reason = f"the chain ends at row {last.seq}, and its head says {end.seq}"
    elif anchor is not None and anchor.seq > last.seq:
        reason = f"the chain ends at row {last.seq}, before the anchor's {anchor.seq}"
    elif anchor is not None and anchor.seq == 0 and anchor.hash != GENESIS:
        return Verified(checked=0, head=end, broken_at=1, reason=_NOT_ITS_ROW)
    else:
        return Verified(checked=last.seq, head=end)
    return Verified(checked=last.seq, head=end, broken_at=last.seq + 1, reason=reason)


def _rows(connection: Connection) -> Generator[Any, None, None]:
    streamed = connection.execution_options(stream_results=True, max_row_buffer=_PART_ROWS)
    with streamed.execute(select(audit_rows).order_by(audit_rows.c.seq)) as found:
        for part in found.partitions(_PART_ROWS):
            yield from part


def _fault(row: Any, last: Head) -> str:
    if row[0] != last.seq + 1:
        return f"row {last.seq + 1} is missing"
    if row[-2] != last.hash:
        return "it does not follow the row before it"
    return "" if row_hash(last.hash, row[:_HASHED]) == row[-1] else "its content was changed"
