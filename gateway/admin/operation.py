"""One operation of the admin API: what it takes and answers, as a value.

The route table and the OpenAPI document are both made from these values, so they cannot disagree.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from litestar import Response
from sqlalchemy import ColumnElement, Connection

from gateway import clock
from gateway.admin import access, bodies
from gateway.admin.deps import AdminDeps
from gateway.admin.door import Origin
from gateway.admin.facts import Facts, difference, facts
from gateway.admin.places import Sight, place_of
from gateway.admin.principal import Principal
from gateway.admin.problems import ProblemError, missing
from gateway.admin.roles import Right
from gateway.stores.sql import audit
from gateway.stores.sql.audit import Entry
from gateway.stores.sql.configuration import changing
from gateway.stores.sql.engine import reading, transaction

T = TypeVar("T")

_ETAG: Final = re.compile(r'"([0-9]{1,9})"')
_ID: Final = re.compile(r"[a-z]+_[0-9a-z]{26}")

Cursor = Annotated[
    str,
    msgspec.Meta(
        pattern="^[a-z]+_[0-9a-z]{26}$",
        max_length=64,
        extra={"rule": "the `next` of the page before"},
    ),
]
PageSize = Annotated[int, msgspec.Meta(ge=1, le=200)]
Filter = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of every list. Nouns add their filters."""

    limit: PageSize = 50
    cursor: Cursor | None = None
    order: Literal["asc", "desc"] = "asc"  # of ids, and so of when things were made

    @property
    def descending(self) -> bool:
        return self.order == "desc"


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an operation that has nothing to be told."""


@dataclass(frozen=True)
class Answer:
    """What an operation answers. `etag` is the row's version. `ready` is a response of another
    media type than JSON, complete with status and headers; the rest does not count then.
    """

    content: Any = None
    etag: int | None = None
    location: str | None = None
    ready: Response[Any] | None = None


@dataclass(frozen=True)
class Operation:
    """`query` and `body` are Structs; `answers` is the Struct (or a JSON schema) of a success.

    `right` has no default: an operation that says nothing of who may do it cannot be made.
    """

    method: str
    path: str  # below /admin/v1, with {id}
    tag: str
    summary: str
    run: Callable[["Call"], Awaitable[Answer]]
    right: Right = field(kw_only=True)
    status: int = 200
    query: type[msgspec.Struct] | None = None
    body: Any = None
    body_optional: bool = False
    answers: Any = None
    if_match: bool = False
    repeatable: bool = False  # with the same idempotency-key it makes nothing more
    etag: bool = False
    refusals: tuple[int, ...] = ()  # besides those that every operation may answer
    description: str = ""
    media_types: tuple[str, ...] = ("application/json",)  # of a success

    @property
    def noun(self) -> str:
        """What the id in the path is the id of: the path's first word."""
        return self.path.split("/")[1]


@dataclass(frozen=True)
class Call:
    """One request to an operation, by somebody who is known and allowed to make it."""

    deps: AdminDeps
    operation: Operation
    principal: Principal
    origin: Origin
    params: Mapping[str, str]
    query: Any
    tree: Any  # the JSON body as plain values; None without one
    if_match: str | None
    accept: str = ""
    repeat_key: str | None = None  # `idempotency-key`, of an operation that is repeatable
    changes: list[Entry] = field(default_factory=list)  # to be told in the transaction under way

    @property
    def name(self) -> str:
        """Of the operation, as logs and the audit chain call it."""
        return f"{self.operation.method} {self.operation.path}"

    @property
    def right(self) -> Right:
        return self.operation.right

    @property
    def noun(self) -> str:
        return self.operation.noun

    @property
    def named(self) -> str | None:
        return self.id if "{id}" in self.operation.path else None

    @property
    def id(self) -> str:
        """The id in the path. 404 for one that no row can have."""
        identifier = self.params["id"]
        if _ID.fullmatch(identifier) is None:
            raise missing("object", identifier)
        return identifier

    def body(self, kind: type[T]) -> T:
        return bodies.convert(self.tree, kind)

    def require_version(self, version: int) -> None:
        """412 when an If-Match was sent that does not name this version."""
        if self.if_match is None or self.if_match.strip() == "*":
            return
        tags = [_ETAG.fullmatch(tag.strip()) for tag in self.if_match.split(",")]
        if not any(tag is not None and int(tag[1]) == version for tag in tags):
            raise ProblemError(
                412,
                "stale_version",
                f"the object is at version {version}, not {self.if_match:.80}; read it again",
                headers={"etag": f'"{version}"'},
            )

    def visible(self, connection: Connection, noun: str) -> tuple[ColumnElement[bool], ...]:
        """What rows of the noun meet that the principal has in sight."""
        return Sight(connection, self.principal).visible(noun)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` answers from one consistent view of the database."""
        return await asyncio.to_thread(self._read, work)

    async def change(self, work: Callable[[Connection], T]) -> T:
        """What `work` answers, its changes committed, told in the audit chain, and announced to
        every worker.
        """
        answer, revision = await asyncio.to_thread(self._change, work)
        await self.deps.publish(revision)
        return answer

    async def write(self, work: Callable[[Connection], T]) -> T:
        """`change` of what no worker has to know of."""
        return await asyncio.to_thread(self._write, work)

    def changed(
        self,
        connection: Connection,
        noun: str,
        before: msgspec.Struct | None,
        after: msgspec.Struct | None,
        *,
        facts_before: Facts | None = None,
        facts_after: Facts | None = None,
    ) -> None:
        """Tells of one object that `work` made (no `before`), changed, or took away (no `after`):
        403 unless the principal may put it where it is now. `facts_*` tell more than the rows.
        """
        if after is not None and not access.unlimited(self.principal):
            access.require_place(connection, self, noun, after)
        row = after if after is not None else before
        if row is None:
            return
        columns = msgspec.structs.asdict(row)
        place = place_of(connection, noun, columns)
        told = [
            None if each is None else {**(facts(each) or {}), **(facts(more) or {})}
            for each, more in ((before, facts_before), (after, facts_after))
        ]
        if told[0] == told[1]:
            return
        was, now = difference(*told)
        entry = Entry(
            at_us=clock.now_us(),
            actor_id=self.principal.id,
            actor_name=self.principal.name,
            role=self.principal.role.value,
            operation=self.name,
            noun=noun,
            object_id=columns["id"],
            tenant_id=place.tenant_id,
            team_id=place.team_id,
            before=was,
            after=now,
            address=self.origin.address,
            request_id=self.origin.request_id,
        )
        self.changes.append(entry)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with reading(self.deps.engine) as connection:
            return work(connection)

    def _change(self, work: Callable[[Connection], T]) -> tuple[T, int]:
        with changing(self.deps.engine) as (connection, revision):
            return self._told(connection, work), revision

    def _write(self, work: Callable[[Connection], T]) -> T:
        with transaction(self.deps.engine) as connection:
            return self._told(connection, work)

    def _told(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        """Allowed once more, as of this transaction: a team may have moved since."""
        authorise(connection, self)
        answer = work(connection)
        if self.changes:
            audit.append(connection, self.changes)
        return answer


def authorise(connection: Connection, call: Call) -> None:
    """ProblemError unless the call may be made, by what path and body name."""
    if not access.unlimited(call.principal):
        access.require(connection, call)
        access.require_references(connection, call)
