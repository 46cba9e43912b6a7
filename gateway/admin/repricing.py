"""Months priced anew: proposed with what differs by team and model, then approved or rejected."""

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.money import format_picos
from billing.repricing import Line
from gateway import clock
from gateway.admin import fields
from gateway.admin.operation import Answer, Call, Filter, Nothing, Operation, Page
from gateway.admin.problems import conflict, invalid, missing
from gateway.admin.resource import filters, page, page_of
from gateway.admin.roles import Right
from gateway.admin.second_person import require_another
from gateway.stores.sql import repricing
from gateway.stores.sql.drafts import NotBegunError, UnknownTenantError
from gateway.stores.sql.repricing import ChangedError, DecidedError, Repricing


class RepricingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`model` left out: every model."""

    tenant_id: fields.Id
    period: Annotated[
        str,
        Meta(
            pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$",
            description="a month where the tenant is",
            extra={"rule": "a month such as 2026-10"},
        ),
    ]
    model: fields.Name | None = None


class RepricingView(msgspec.Struct, frozen=True, kw_only=True):
    """`old` is what was charged from `start` to `end`, `new` what it would be; both as booked, at
    the dearest tier of prices by quantity, of which the month's total takes off `*_tiers`.
    `unpriced` requests have no price now, and stay as they were charged.
    """

    id: str
    tenant_id: str
    period: str
    model: str | None
    state: str
    currency: str
    start: str
    end: str
    requests: int
    corrected: int
    unpriced: int
    old: str
    new: str
    difference: str
    old_tiers: str
    new_tiers: str
    digest: str
    drafted_by: str
    decided_by: str | None
    decided_at: str | None
    created_at: str


class RepricedView(msgspec.Struct, frozen=True, kw_only=True):
    """What one team used of one model. The differences of all add up to the proposal's."""

    team_id: str
    model: str
    requests: int
    corrected: int
    old: str
    new: str
    difference: str


class RepricedLines(msgspec.Struct, frozen=True, kw_only=True):
    currency: str
    lines: tuple[RepricedView, ...]


class RepricingPage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    period: Filter | None = None
    state: Literal["draft", "approved", "rejected"] | None = None


async def _propose(call: Call) -> Answer:
    body = call.body(RepricingBody)
    by = call.principal.id

    def made(connection: Connection) -> tuple[Repricing, tuple[Line, ...]]:
        return repricing.compute(connection, body.tenant_id, body.period, body.model, by)

    try:
        row, lines = await call.read(made)
    except NotBegunError as fault:
        raise invalid("period", str(fault)) from None
    except UnknownTenantError:
        raise invalid("tenant_id", f"there is no tenant {body.tenant_id!r}") from None
    except ValueError as fault:
        raise invalid("period", str(fault)) from None

    def work(connection: Connection) -> None:
        call.changed(connection, "repricings", None, row)
        repricing.add(connection, row, lines)

    await call.write(work)
    return Answer(_view(row), row.version, f"/admin/v1/repricings/{row.id}")


async def _list(call: Call) -> Answer:
    query: RepricingPage = call.query
    found = await call.read(
        lambda connection: repricing.RECORDS.page(
            connection,
            filters(query),
            query.cursor,
            query.limit + 1,
            call.visible(connection, call.noun),
            descending=query.descending,
        )
    )
    return Answer(page([_view(row) for row in found[: query.limit]], found, query.limit))


async def _read(call: Call) -> Answer:
    row = await call.read(lambda connection: _found(connection, call.id))
    return Answer(_view(row), row.version)


async def _lines(call: Call) -> Answer:
    def work(connection: Connection) -> tuple[Repricing, list[Line]]:
        row = _found(connection, call.id)
        return row, repricing.lines_of(connection, row.id)

    row, lines = await call.read(work)
    return Answer(RepricedLines(currency=row.currency, lines=tuple(map(_line, lines))))


async def _approve(call: Call) -> Answer:
    return await _decided(call, repricing.approve, "approve")


async def _reject(call: Call) -> Answer:
    return await _decided(call, repricing.reject, "reject")


_Decide = Callable[[Connection, Repricing, str], Repricing]


async def _decided(call: Call, decide: _Decide, verb: str) -> Answer:
    call.body(Nothing)

    def work(connection: Connection) -> Repricing:
        row = repricing.locked(connection, _found(connection, call.id))
        call.require_version(row.version)
        if verb == "approve" and row.state == "draft":
            why = "a month is priced anew by two"
            require_another(connection, row.drafted_by, call.principal, why)
        after = decide(connection, row, call.principal.id)
        if after != row:
            call.changed(connection, "repricings", row, after)
        return after

    try:
        row = await call.write(work)
    except ChangedError as fault:
        raise conflict("changed", str(fault)) from None
    except DecidedError as fault:
        raise conflict("decided", str(fault)) from None
    return Answer(_view(row), row.version)


def _found(connection: Connection, identifier: str) -> Repricing:
    row = repricing.RECORDS.one(connection, id=identifier)
    if row is None:
        raise missing("repricing", identifier)
    return row


def _view(row: Repricing) -> RepricingView:
    return RepricingView(
        id=row.id,
        tenant_id=row.tenant_id,
        period=row.period,
        model=row.model,
        state=row.state,
        currency=row.currency,
        start=clock.rfc3339(row.start_us),
        end=clock.rfc3339(row.end_us),
        requests=row.requests,
        corrected=row.corrected,
        unpriced=row.unpriced,
        old=format_picos(row.old_picos),
        new=format_picos(row.new_picos),
        difference=format_picos(row.new_picos - row.old_picos),
        old_tiers=format_picos(row.old_tiers_picos),
        new_tiers=format_picos(row.new_tiers_picos),
        digest=row.digest,
        drafted_by=row.drafted_by,
        decided_by=row.decided_by,
        decided_at=fields.shown_instant(row.decided_at_us),
        created_at=clock.rfc3339(row.created_at_us),
    )


def _line(line: Line) -> RepricedView:
    return RepricedView(
        team_id=line.team_id,
        model=line.model,
        requests=line.requests,
        corrected=line.corrected,
        old=format_picos(line.old_picos),
        new=format_picos(line.new_picos),
        difference=format_picos(line.new_picos - line.old_picos),
    )


def operations() -> list[Operation]:
    path, one, tag, read = "/repricings", "/repricings/{id}", "repricings", Right.INVOICES_READ
    return [
        Operation(
            "GET", path, tag, "List proposals to price a month anew", _list,
            right=read, query=RepricingPage, answers=page_of(RepricingView),
        ),
        Operation(
            "POST", path, tag, "Propose to price a month anew", _propose,
            right=Right.INVOICES_DRAFT, status=201, body=RepricingBody, answers=RepricingView,
            etag=True, refusals=(422,),
            description="By the prices and discounts that are approved now, each as it is in "
            "force when a request was admitted. Nothing is booked. Of a month that is running it "
            "has what is an hour old.",
        ),
        Operation(
            "GET", one, tag, "Read a proposal", _read,
            right=read, answers=RepricingView, etag=True, refusals=(404,),
        ),
        Operation(
            "GET", f"{one}/lines", tag, "Read what it comes to by team and model", _lines,
            right=read, answers=RepricedLines, refusals=(404,),
        ),
        Operation(
            "POST", f"{one}/approve", tag, "Book a proposal", _approve,
            right=Right.INVOICES_ISSUE, body=Nothing, body_optional=True, answers=RepricingView,
            etag=True, if_match=True, refusals=(404, 409, 412),
            description="By somebody else than who proposed it, while usage and prices are those "
            "it was made of. Each request that it changes is taken back and charged anew, in its "
            "own month: what is issued stays, and the next invoice has the difference.",
        ),
        Operation(
            "POST", f"{one}/reject", tag, "Reject a proposal", _reject,
            right=Right.INVOICES_ISSUE, body=Nothing, body_optional=True, answers=RepricingView,
            etag=True, if_match=True, refusals=(404, 409, 412),
        ),
    ]  # fmt: skip
