"""The audit chain: who changed what, when and from where; whether the chain holds; its head."""

import asyncio
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import ColumnElement, Connection

from gateway import clock
from gateway.admin import fields
from gateway.admin.operation import Answer, Call, Filter, Operation, Page
from gateway.admin.problems import invalid, missing
from gateway.admin.resource import filters, page, page_of
from gateway.admin.roles import Right
from gateway.stores.sql import audit
from gateway.stores.sql.admin_tables import audit_rows

Hash = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", extra={"rule": "a SHA-256 of 64 hexadecimal digits"})
]
_TIMES: Final = {"from_", "to"}


class AuditPage(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`from` is inside, `to` is not."""

    from_: fields.Instant | None = msgspec.field(default=None, name="from")
    to: fields.Instant | None = None
    actor_id: Filter | None = None
    operation: Filter | None = None
    noun: Filter | None = None
    object_id: Filter | None = None
    tenant_id: Filter | None = None
    request_id: Filter | None = None


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """`before` and `after` are facts without secrets; of an object that was there before and after,
    those that changed.
    """

    id: str
    seq: int
    at: str
    actor_id: str
    actor_name: str
    role: str
    operation: str
    noun: str
    object_id: str
    tenant_id: str | None
    team_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str
    request_id: str
    prev_hash: str
    hash: str


class HeadView(msgspec.Struct, frozen=True):
    """What to keep elsewhere: a chain that was remade does not hold against it."""

    seq: int
    hash: str
    at: str


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A head that was kept: both or neither."""

    seq: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    hash: Hash | None = None


class VerifyView(msgspec.Struct, frozen=True, kw_only=True):
    """`first_broken` is the number of the first row that does not hold."""

    valid: bool
    checked: int
    first_broken: int | None
    reason: str
    head: HeadView


async def _list(call: Call) -> Answer:
    query: AuditPage = call.query
    where = {name: value for name, value in filters(query).items() if name not in _TIMES}
    spans: list[ColumnElement[bool]] = []
    if query.from_ is not None:
        spans.append(audit_rows.c.at_us >= fields.instant(query.from_, "from"))
    if query.to is not None:
        spans.append(audit_rows.c.at_us < fields.instant(query.to, "to"))

    def work(connection: Connection) -> tuple[audit.AuditRow, ...]:
        only = (*spans, *call.visible(connection, "audit"))
        return audit.RECORDS.page(
            connection, where, query.cursor, query.limit + 1, only, descending=query.descending
        )

    found = await call.read(work)
    items = [_view(row) for row in found[: query.limit]]
    return Answer(page(items, found, query.limit))


async def _read(call: Call) -> Answer:
    row = await call.read(lambda connection: audit.RECORDS.one(connection, id=call.id))
    if row is None:
        raise missing("audit row", call.id)
    return Answer(_view(row))


async def _head(call: Call) -> Answer:
    return Answer(_head_view(await call.read(audit.head)))


async def _verify(call: Call) -> Answer:
    query: Anchor = call.query
    if (query.seq is None) != (query.hash is None):
        raise invalid("seq" if query.seq is None else "hash", "an anchor is a seq and its hash")
    anchor = None
    if query.seq is not None and query.hash is not None:
        anchor = audit.Head(query.seq, query.hash)
    found = await asyncio.to_thread(audit.verify, call.deps.engine, anchor)
    return Answer(
        VerifyView(
            valid=found.broken_at is None,
            checked=found.checked,
            first_broken=found.broken_at,
            reason=found.reason,
            head=_head_view(found.head),
        )
    )


def _head_view(head: audit.Head) -> HeadView:
    return HeadView(head.seq, head.hash, clock.rfc3339(clock.now_us()))


def _view(row: audit.AuditRow) -> AuditView:
    same = {name: getattr(row, name) for name in AuditView.__struct_fields__ if name != "at"}
    facts = {name: _facts(getattr(row, name)) for name in ("before", "after")}
    return AuditView(**same | facts, at=clock.rfc3339(row.at_us))


def _facts(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def operations() -> list[Operation]:
    right = Right.AUDIT_READ
    return [
        Operation(
            "GET", "/audit", "audit", "List who changed what, the oldest first", _list,
            right=right, query=AuditPage, answers=page_of(AuditView), refusals=(422,),
        ),
        Operation(
            "GET", "/audit/verify", "audit", "Check the chain from its first row to its head",
            _verify, right=right, query=Anchor, answers=VerifyView, refusals=(422,),
            description="With `seq` and `hash` of a head that was kept elsewhere, also that the "
            "chain is still the one it was the head of.",
        ),
        Operation(
            "GET", "/audit/head", "audit", "The head of the chain, to be kept elsewhere", _head,
            right=right, answers=HeadView,
        ),
        Operation(
            "GET", "/audit/{id}", "audit", "Read a row of the audit chain", _read,
            right=right, answers=AuditView, refusals=(404,),
        ),
    ]  # fmt: skip
