"""The five operations that most nouns share: list, create, read, replace, delete.

A noun says what is particular to it: its body, its checks, what it shows. Everything else (pages,
filters, ETags, 404, 409, 412, announcing the change) is the same for all and stands here once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Connection

from gateway.admin import bodies
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Answer, Call, Operation, Page
from gateway.admin.principal import Principal
from gateway.admin.problems import conflict, invalid, missing
from gateway.admin.roles import Right
from gateway.stores.sql.records import Records, TakenError

R = TypeVar("R", bound=msgspec.Struct)
B = TypeVar("B", bound=msgspec.Struct)
V = TypeVar("V", bound=msgspec.Struct)


@dataclass(frozen=True)
class Resource(Generic[R, B, V]):
    """`build` makes the row to be written from the body and, on PUT, the row that is there; it
    raises ProblemError. `facts` are what `show` needs besides the row, of the same transaction.
    """

    plural: str
    singular: str
    records: Records[R]
    body: type[B]
    view: type[V]
    page: type[Page]
    build: Callable[[Connection, AdminDeps, B, R | None], R]
    show: Callable[[AdminDeps, R, Any], Awaitable[V]]
    in_use: Callable[[Connection, R], str | None]
    taken: str  # what is unique, in words: "a tenant of this name"
    reads: Right
    changes: Right
    manages: Right | None = None  # to create and delete, where that is another right
    facts: Callable[[Connection, R], Any] = lambda _connection, _row: None
    remove: Callable[[Connection, R], None] | None = None
    # What else changes with a row that was written, in the same transaction. Before and after.
    entails: Callable[[Call, Connection, R | None, R], None] | None = None
    # After a row was written, before the answer. It must not raise: what it does is done later
    # by the jobs where it fails.
    opened: Callable[[AdminDeps, R, Any], Awaitable[None]] | None = None
    # What `changes` alone does not allow; raises ProblemError. Before and after of a PUT.
    reserved: Callable[[Principal, R, R], None] | None = None

    def operations(self) -> list[Operation]:
        return [*self._collection(), *self._member()]

    def _collection(self) -> list[Operation]:
        path = f"/{self.plural}"
        listing = page_of(self.view)
        return [
            Operation(
                "GET", path, self.plural, f"List {self.plural}", self.list,
                right=self.reads, query=self.page, answers=listing,
            ),
            Operation(
                "POST", path, self.plural, f"Create a {self.singular}", self.create,
                right=self.manages or self.changes, status=201, body=self.body, answers=self.view,
                etag=True, refusals=(409, 422),
            ),
        ]  # fmt: skip

    def _member(self) -> list[Operation]:
        path = f"/{self.plural}/{{id}}"
        return [
            Operation(
                "GET", path, self.plural, f"Read a {self.singular}", self.read,
                right=self.reads, answers=self.view, etag=True, refusals=(404,),
            ),
            Operation(
                "PUT", path, self.plural, f"Replace a {self.singular}", self.replace,
                right=self.changes, body=self.body, answers=self.view, etag=True, if_match=True,
                refusals=(404, 409, 412, 422),
                description="Fields left out take their defaults. What GET answers may be sent "
                "back: its read-only fields are ignored.",
            ),
            Operation(
                "DELETE", path, self.plural, f"Delete a {self.singular}", self.delete,
                right=self.manages or self.changes, status=204, if_match=True,
                refusals=(404, 409, 412),
            ),
        ]  # fmt: skip

    async def list(self, call: Call) -> Answer:
        where = filters(call.query)
        after, size = call.query.cursor, call.query.limit

        def work(connection: Connection) -> list[tuple[R, Any]]:
            only = call.visible(connection, self.plural)
            rows = self.records.page(
                connection, where, after, size + 1, only, descending=call.query.descending
            )
            return [(row, self.facts(connection, row)) for row in rows]

        found = await call.read(work)
        # Side by side: each may ask a store that is silent, and waits only once that way.
        shown = (self.show(call.deps, row, facts) for row, facts in found[:size])
        items = list(await asyncio.gather(*shown))
        return Answer(page(items, [row for row, _ in found], size))

    async def create(self, call: Call) -> Answer:
        body = call.body(self.body)

        def work(connection: Connection) -> tuple[R, Any]:
            row = self.build(connection, call.deps, body, None)
            call.changed(connection, self.plural, None, row)
            with self.unique():
                self.records.add(connection, row)
            if self.entails is not None:
                self.entails(call, connection, None, row)
            return row, self.facts(connection, row)

        return await self._written(call, *await call.change(work))

    async def read(self, call: Call) -> Answer:
        def work(connection: Connection) -> tuple[R, Any]:
            row = self.row(connection, call)
            return row, self.facts(connection, row)

        return await self._shown(call, *await call.read(work))

    async def replace(self, call: Call) -> Answer:
        body = self.replacement(call)

        def work(connection: Connection) -> tuple[R, Any]:
            before = self.row(connection, call)
            call.require_version(version_of(before))
            row = self.build(connection, call.deps, body, before)
            if row != before:
                if self.reserved is not None:
                    self.reserved(call.principal, before, row)
                row = msgspec.structs.replace(row, version=version_of(before) + 1)
                call.changed(connection, self.plural, before, row)
                with self.unique():
                    self.records.replace(connection, row)
                if self.entails is not None:
                    self.entails(call, connection, before, row)
            return row, self.facts(connection, row)

        return await self._written(call, *await call.change(work))

    async def delete(self, call: Call) -> Answer:
        def work(connection: Connection) -> None:
            row = self.row(connection, call)
            call.require_version(version_of(row))
            reason = self.in_use(connection, row)
            if reason is not None:
                raise conflict(
                    "in_use", f"the {self.singular} cannot be deleted: {reason} still refer to it"
                )
            call.changed(connection, self.plural, row, None)
            if self.remove is not None:
                self.remove(connection, row)
            self.records.remove(connection, id=call.id)

        await call.change(work)
        return Answer()

    def row(self, connection: Connection, call: Call) -> R:
        found = self.records.one(connection, id=call.id)
        if found is None:
            raise missing(self.singular, call.id)
        return found

    def replacement(self, call: Call) -> B:
        """The body of a PUT. What GET answers may come back: its read-only fields are let by."""
        writable = {field.encode_name for field in msgspec.structs.fields(self.body)}
        shown = {field.encode_name for field in msgspec.structs.fields(self.view)}
        return returned(call, self.body, shown - writable)

    @contextmanager
    def unique(self) -> Iterator[None]:
        try:
            yield
        except TakenError:
            raise conflict("already_exists", f"there is {self.taken} already") from None

    async def _written(self, call: Call, row: R, facts: Any) -> Answer:
        if self.opened is not None:
            await self.opened(call.deps, row, facts)
        return await self._shown(call, row, facts)

    async def _shown(self, call: Call, row: R, facts: Any) -> Answer:
        view = await self.show(call.deps, row, facts)
        identifier = str(getattr(row, "id", ""))
        location = f"/admin/v1/{self.plural}/{identifier}" if call.operation.status == 201 else None
        return Answer(view, version_of(row), location)


def returned(call: Call, kind: type[B], read_only: set[str]) -> B:
    if isinstance(call.tree, dict):
        if call.tree.get("id", call.id) != call.id:
            raise invalid("id", "the id in the body is not the one in the path")
        tree = {name: value for name, value in call.tree.items() if name not in read_only}
        return bodies.convert(tree, kind)
    return call.body(kind)


def version_of(row: Any) -> int:
    return int(row.version)


@cache
def page_of(view: Any) -> type[msgspec.Struct]:
    """The Struct of a page of views, named after them for the API description."""
    fields = [("items", tuple[view, ...]), ("next", str | None)]
    return msgspec.defstruct(f"{view.__name__}Page", fields, frozen=True)


def page(items: Sequence[Any], rows: Sequence[Any], size: int) -> dict[str, Any]:
    """`next` is the cursor after which the next page begins: the id of the last row shown."""
    more = len(rows) > size
    return {"items": items, "next": rows[size - 1].id if more else None}


def filters(query: Page) -> dict[str, Any]:
    """The columns that rows must equal: every parameter that was given, but for the paging."""
    given = msgspec.structs.asdict(query)
    return {
        name: value
        for name, value in given.items()
        if name not in {"limit", "cursor", "order"} and value is not None
    }
