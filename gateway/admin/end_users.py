"""End users by the names that apps have for them: found, told what is kept of them (article 15 of
the GDPR), and erased (article 17). The name stands in a body, never in a path: those are logged.

The audit chain tells how many pseudonyms and requests it was about, and not which: it is kept for
ever, and beside it somebody may have noted whose request it answered.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.money import format_picos
from billing.periods import MAX_US
from gateway import clock
from gateway.admin.cost_sight import sees_cost
from gateway.admin.operation import Answer, Call, Operation, PageSize
from gateway.admin.problems import conflict, invalid, missing
from gateway.admin.requests import RequestCursor, RequestPage, cursor_of, page_of_requests
from gateway.admin.roles import Right
from gateway.pseudonyms import MOST_NAME_BYTES
from gateway.stores.sql import erasure, pseudonym_keys, tenants, usage_requests
from gateway.stores.sql.seal import SealError

_STAYS: Final = (
    "Nothing links this person to the ledger any more. The rows stay as they were sealed, with "
    "their amounts, under pseudonyms that lead to nobody, and no invoice changes. What had been "
    "asked before and is booked later is nobody's. Backups, and what the database keeps of rows "
    "that went, have the link until they age out. Tags that apps sent are kept as they were sent."
)
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MOST_NAME_BYTES,
        description="the name that apps send, letter for letter",
        extra={"rule": "a name as apps send it, of 1 to 1024 characters"},
    ),
]
Subject = Annotated[
    str,
    Meta(
        pattern="^eu_[0-9a-z]{26}$",
        description="a pseudonym, as usage has it",
        extra={"rule": "an `end_user` of a usage row"},
    ),
]


class Whose(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of the two. By name it is everything that was kept under any version of the key."""

    user: Name | None = None
    end_user: Subject | None = None


class WhoseRows(Whose, frozen=True, forbid_unknown_fields=True, kw_only=True):
    limit: PageSize = 50
    cursor: RequestCursor | None = None


class AmountView(msgspec.Struct, frozen=True, kw_only=True):
    """What was charged for the person's requests, in one currency; exact."""

    currency: str
    requests: int
    charge: str


class FoundView(msgspec.Struct, frozen=True, kw_only=True):
    """The pseudonyms that usage has for somebody, one for each version of the key."""

    end_users: tuple[str, ...]
    amounts: tuple[AmountView, ...]


class ErasedView(msgspec.Struct, frozen=True, kw_only=True):
    """`erased` pseudonyms led to the person until now; `stays` is what their rows come to."""

    erased: int
    erased_at: str
    stays: tuple[AmountView, ...]
    note: str


class Rotate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """With `forget` the keys before are destroyed: nobody they hashed is found any more."""

    forget: bool = False


class RotatedView(msgspec.Struct, frozen=True, kw_only=True):
    key_version: int
    forgotten: int  # versions before it


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit chain has of it. `id` is the tenant's."""

    id: str
    pseudonyms: int
    requests: int
    at: str


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    key_version: int
    forgotten: int


async def _find(call: Call) -> Answer:
    whose = call.body(Whose)

    def work(connection: Connection) -> FoundView:
        found = _subjects(connection, call, _pseudonyms(connection, call, whose))
        amounts = erasure.amounts(connection, found)
        _tell(connection, call, len(found), sum(each.requests for each in amounts))
        return FoundView(end_users=tuple(found), amounts=tuple(map(_amount, amounts)))

    return Answer(await call.write(work))


async def _export(call: Call) -> Answer:
    whose = call.body(WhoseRows)

    def work(connection: Connection) -> RequestPage:
        mine = frozenset(_subjects(connection, call, _pseudonyms(connection, call, whose)))
        found = usage_requests.page_of(
            connection,
            start_us=0,
            end_us=MAX_US,
            filters={},
            within={"end_user": mine},
            after=cursor_of(whose.cursor),
            limit=whose.limit + 1,
        )
        shown = page_of_requests(connection, found, whose.limit, sees_cost(call))
        _tell(connection, call, len(mine), len(shown.items))
        return shown

    return Answer(await call.write(work))


async def _erase(call: Call) -> Answer:
    whose = call.body(Whose)

    def work(connection: Connection) -> ErasedView:
        now_us = clock.now_us()
        pseudonyms = _pseudonyms(connection, call, whose)
        found = _subjects(connection, call, pseudonyms)
        amounts = erasure.amounts(connection, found)
        erasure.erase(connection, call.id, pseudonyms, now_us)
        _tell(connection, call, len(found), sum(each.requests for each in amounts))
        return ErasedView(
            erased=len(found),
            erased_at=clock.rfc3339(now_us),
            stays=tuple(map(_amount, amounts)),
            note=_STAYS,
        )

    return Answer(await call.write(work))


async def _rotate(call: Call) -> Answer:
    body = call.body(Rotate)

    def work(connection: Connection) -> RotatedView:
        _require_tenant(connection, call)
        before = pseudonym_keys.of_tenant(connection, call.id)
        if not before:
            raise conflict("no_key", "no end users are kept: set `end_users` of the tenant first")
        made = pseudonym_keys.add(connection, call.deps.sealer, call.id)
        forgotten = len(before) if body.forget else 0
        if forgotten:
            pseudonym_keys.destroy(connection, call.id, made.key_version)
        after = _Key(id=call.id, key_version=made.key_version, forgotten=forgotten)
        call.changed(connection, "tenants", None, after)
        return RotatedView(key_version=made.key_version, forgotten=forgotten)

    return Answer(await call.change(work))


def _pseudonyms(connection: Connection, call: Call, whose: Whose) -> list[str]:
    """By which the person may be known, from the oldest key on. Of a subject: what is left."""
    _require_tenant(connection, call)
    if (whose.user is None) == (whose.end_user is None):
        raise invalid("user", "say whose it is: by `user` or by `end_user`, one of the two")
    if whose.end_user is not None:
        found = erasure.pseudonym_of(connection, call.id, whose.end_user)
        return [] if found is None else [found]
    keys = pseudonym_keys.of_tenant(connection, call.id)
    try:
        opened = pseudonym_keys.opened(call.deps.sealer, keys)
    except SealError as fault:
        raise conflict("key_unreadable", f"nobody can be looked up: {fault}") from None
    known = (each.of(whose.user or "") for each in opened)
    return [each for each in known if each is not None]


def _subjects(connection: Connection, call: Call, pseudonyms: list[str]) -> list[str]:
    return erasure.subjects(connection, call.id, pseudonyms)


def _require_tenant(connection: Connection, call: Call) -> None:
    if not tenants.RECORDS.exists(connection, id=call.id):
        raise missing("tenant", call.id)


def _tell(connection: Connection, call: Call, pseudonyms: int, requests: int) -> None:
    at = clock.rfc3339(clock.now_us())
    told = _Told(id=call.id, pseudonyms=pseudonyms, requests=requests, at=at)
    call.changed(connection, "tenants", None, told)


def _amount(amount: erasure.Amount) -> AmountView:
    return AmountView(
        currency=amount.currency,
        requests=amount.requests,
        charge=format_picos(amount.charge_picos),
    )


def operations() -> list[Operation]:
    path, tag = "/tenants/{id}/end-users", "end-users"
    reads, erases = Right.END_USERS_READ, Right.END_USERS_ERASE
    return [
        Operation(
            "POST", f"{path}/find", tag, "Find the pseudonyms of an end user", _find,
            right=reads, body=Whose, answers=FoundView, refusals=(404, 409, 422),
        ),
        Operation(
            "POST", f"{path}/export", tag, "List what is kept of an end user", _export,
            right=reads, body=WhoseRows, answers=RequestPage, refusals=(404, 409, 422),
            description="Request by request, as `/usage/requests` has them.",
        ),
        Operation(
            "POST", f"{path}/erase", tag, "Erase an end user", _erase,
            right=erases, body=Whose, answers=ErasedView, refusals=(404, 409, 422),
            description="What links the person to the ledger is deleted; done again, there is "
            "nothing left to erase. What is asked for after it begins a new pseudonym.",
        ),
        Operation(
            "POST", f"{path}/rotate", tag, "Renew the key of pseudonyms", _rotate,
            right=erases, body=Rotate, body_optional=True, answers=RotatedView,
            refusals=(404, 409),
            description="End users get other pseudonyms from then on, and are found under all "
            "of theirs, unless the keys before are forgotten: then nobody is who was known by "
            "them.",
        ),
    ]  # fmt: skip
