"""Loop breakers, one a scope, and the keys that they block: seen here, and lifted by hand."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing import money
from gateway import clock, ids
from gateway.admin import access, fields, scoped
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Answer, Call, Filter, Nothing, Operation, Page
from gateway.admin.problems import conflict, invalid, missing
from gateway.admin.resource import Resource, filters, page, page_of
from gateway.admin.roles import Right
from gateway.stores.sql import breakers, rows, tenants

Action = Literal["alert", "block"]
Requests = Annotated[int, Meta(ge=2, le=10**6)]
Minutes = Annotated[int, Meta(ge=1, le=1_440)]


class LoopBreaker(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Calls of one key at the scope or below, of one shape (model, kind of call, size of prompt),
    that cost so much within a minute are a loop. `block` refuses the key for `block_minutes`.
    """

    scope: fields.Scope
    amount_per_minute: fields.Decimal
    least_requests: Requests = 10
    action: Action = "alert"
    block_minutes: Minutes = 15


class LoopBreakerView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    scope: fields.Scope
    amount_per_minute: str
    least_requests: int
    action: str
    block_minutes: int
    created_at: str


class BlockPage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    team_id: Filter | None = None
    key_id: Filter | None = None


class BlockView(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: active, over or lifted. `reason` is what refused requests read."""

    id: str
    tenant_id: str
    team_id: str
    key_id: str
    breaker_id: str
    alert_id: str
    shape: str
    reason: str
    state: str
    from_: str = msgspec.field(name="from")
    until: str
    lifted_at: str | None


def _build(
    connection: Connection, _deps: AdminDeps, body: LoopBreaker, before: rows.LoopBreaker | None
) -> rows.LoopBreaker:
    kind, scope_id, tenant_id = scoped.place(connection, body.scope, before)
    tenant = tenants.RECORDS.one(connection, id=tenant_id)
    if tenant is None:
        raise invalid("scope", f"there is no tenant {tenant_id!r}")
    amount, currency = body.amount_per_minute, tenant.currency
    fields.checked("amount_per_minute", money.parse_counter, amount, currency)
    if money.parse_counter(amount, currency) <= 0:
        raise invalid("amount_per_minute", "it must be more than nothing")
    return rows.LoopBreaker(
        id=ids.new("breaker") if before is None else before.id,
        tenant_id=tenant_id,
        scope_kind=kind,
        scope_id=scope_id,
        amount_per_minute=amount,
        least_requests=body.least_requests,
        action=body.action,
        block_minutes=body.block_minutes,
        version=1 if before is None else before.version,
        created_at_us=clock.now_us() if before is None else before.created_at_us,
    )


async def _show(_deps: AdminDeps, row: rows.LoopBreaker, _facts: None) -> LoopBreakerView:
    return LoopBreakerView(
        id=row.id,
        tenant_id=row.tenant_id,
        scope=fields.scope_of(row.scope_kind, row.scope_id),
        amount_per_minute=row.amount_per_minute,
        least_requests=row.least_requests,
        action=row.action,
        block_minutes=row.block_minutes,
        created_at=clock.rfc3339(row.created_at_us),
    )


def _view(row: rows.KeyBlock) -> BlockView:
    state = "active" if clock.now_us() < row.until_us else "over"
    return BlockView(
        id=row.id,
        tenant_id=row.tenant_id,
        team_id=row.team_id,
        key_id=row.key_id,
        breaker_id=row.breaker_id,
        alert_id=row.alert_id,
        shape=row.shape,
        reason=row.reason,
        state=state if row.lifted_at_us is None else "lifted",
        from_=clock.rfc3339(row.from_us),
        until=clock.rfc3339(row.until_us),
        lifted_at=fields.shown_instant(row.lifted_at_us),
    )


async def _list(call: Call) -> Answer:
    where, size = filters(call.query), call.query.limit

    def work(connection: Connection) -> list[BlockView]:
        only = call.visible(connection, "key-blocks")
        found = breakers.BLOCKS.page(
            connection, where, call.query.cursor, size + 1, only, descending=call.query.descending
        )
        return [_view(each) for each in found]

    found = await call.read(work)
    return Answer(page(found[:size], found, size))


async def _read(call: Call) -> Answer:
    return Answer(_view(await call.read(lambda connection: _one(connection, call.id))))


async def _lift(call: Call) -> Answer:
    """The key is served again within a second; what it did until now is forgotten. 403 for whom
    the breaker stands above: it binds them (L11). Of one that is gone, whoever has the key lifts.
    """
    call.body(Nothing)

    def work(connection: Connection) -> rows.KeyBlock:
        block, now_us = _one(connection, call.id), clock.now_us()
        breaker = breakers.RECORDS.one(connection, id=block.breaker_id)
        if breaker is not None:
            access.require_place(connection, call, RESOURCE.plural, breaker)
        if block.lifted_at_us is not None:
            return block
        if now_us >= block.until_us:
            raise conflict("over", f"the block ended at {clock.rfc3339(block.until_us)}")
        lifted = breakers.lifted(block, now_us)
        call.changed(connection, "key-blocks", block, lifted)
        return breakers.BLOCKS.replace(connection, lifted)

    return Answer(_view(await call.change(work)))


def _one(connection: Connection, block_id: str) -> rows.KeyBlock:
    found = breakers.BLOCKS.one(connection, id=block_id)
    if found is None:
        raise missing("key block", block_id)
    return found


RESOURCE: Final = Resource(
    plural="loop-breakers",
    singular="loop breaker",
    records=breakers.RECORDS,
    body=LoopBreaker,
    view=LoopBreakerView,
    page=scoped.ScopedPage,
    build=_build,
    show=_show,
    in_use=lambda _connection, _row: None,
    taken="a loop breaker for this scope",
    reads=Right.LIMITS_READ,
    changes=Right.LIMITS_CHANGE,
)


def operations() -> list[Operation]:
    return [
        *RESOURCE.operations(),
        Operation(
            "GET", "/key-blocks", "loop-breakers", "List keys that were blocked", _list,
            right=Right.KEYS_READ, query=BlockPage, answers=page_of(BlockView),
        ),
        Operation(
            "GET", "/key-blocks/{id}", "loop-breakers", "Read why a key was blocked", _read,
            right=Right.KEYS_READ, answers=BlockView, refusals=(404,),
        ),
        Operation(
            "POST", "/key-blocks/{id}/lift", "loop-breakers", "Serve a blocked key again", _lift,
            right=Right.KEYS_CHANGE, body=Nothing, body_optional=True, answers=BlockView,
            refusals=(404, 409),
        ),
    ]  # fmt: skip
