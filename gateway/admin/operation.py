"""One operation of the admin API: what it takes and answers, as a value.

The route table and the OpenAPI document are both made from these values, so they cannot disagree.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler
from sqlalchemy import Connection

from gateway.admin import bodies
from gateway.admin.deps import AdminDeps
from gateway.admin.problems import ProblemError, malformed, missing
from gateway.stores.sql.configuration import changing
from gateway.stores.sql.engine import reading

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
    """`query` and `body` are Structs; `answers` is the Struct (or a JSON schema) of a success."""

    method: str
    path: str  # below /admin/v1, with {id}
    tag: str
    summary: str
    run: Callable[["Call"], Awaitable[Answer]]
    status: int = 200
    query: type[msgspec.Struct] | None = None
    body: Any = None
    body_optional: bool = False
    answers: Any = None
    if_match: bool = False
    etag: bool = False
    refusals: tuple[int, ...] = ()  # besides those that every operation may answer
    description: str = ""
    media_types: tuple[str, ...] = ("application/json",)  # of a success


@dataclass(frozen=True)
class Call:
    """One request to an operation, authenticated."""

    deps: AdminDeps
    operation: Operation
    params: Mapping[str, str]
    query: Any
    tree: Any  # the JSON body as plain values; None without one
    if_match: str | None
    accept: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

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

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` answers from one consistent view of the database."""
        return await asyncio.to_thread(self._read, work)

    async def change(self, work: Callable[[Connection], T]) -> T:
        """What `work` answers, its changes committed and announced to every worker."""
        answer, revision = await asyncio.to_thread(self._change, work)
        await self.deps.publish(revision)
        return answer

    def _read(self, work: Callable[[Connection], T]) -> T:
        with reading(self.deps.engine) as connection:
            return work(connection)

    def _change(self, work: Callable[[Connection], T]) -> tuple[T, int]:
        with changing(self.deps.engine) as (connection, revision):
            return work(connection), revision


def route(operation: Operation, deps: AdminDeps) -> HTTPRouteHandler:
    """The operation as a Litestar handler. Bodies are decoded here, because Litestar is lax."""

    async def serve(request: Request[Any, Any, Any]) -> Response[Any]:
        call = Call(
            deps=deps,
            operation=operation,
            params={name: str(value) for name, value in request.path_params.items()},
            query=_query(request, operation.query),
            tree=await _body(request, operation),
            if_match=request.headers.get("if-match"),
            accept=request.headers.get("accept", ""),
        )
        answer = await operation.run(call)
        return _response(operation, answer) if answer.ready is None else answer.ready

    return HTTPRouteHandler(
        operation.path.replace("{id}", "{id:str}"),
        http_method=[operation.method],  # type: ignore[list-item]
        status_code=200,  # each Response carries its own
        include_in_schema=False,  # gateway.admin.openapi describes it
        request_max_body_size=bodies.MOST_BYTES,
        media_type=operation.media_types[0],  # Litestar's streams take it from here
    )(serve)


async def _body(request: Request[Any, Any, Any], operation: Operation) -> Any:
    if operation.body is None:
        return None
    if operation.body_optional and not await request.body():
        return {}
    return await bodies.read(request)


def _query(request: Request[Any, Any, Any], kind: type[msgspec.Struct] | None) -> Any:
    """Query parameters as a Struct. 400 names one that is unknown, repeated or out of bounds."""
    given = list(request.query_params.multi_items())
    names = [name for name, _ in given]
    for name in names:
        if names.count(name) > 1:
            raise malformed(name, "this parameter is given twice")
    bodies.refuse_controls(dict(given), "", 1)
    known = {each.encode_name for each in msgspec.structs.fields(kind)} if kind else set()
    for name in names:
        if name not in known:
            raise malformed(name, "there is no such parameter", "unknown_parameter")
    if kind is None:
        return None
    return bodies.convert(dict(given), kind, strict=False)


def _response(operation: Operation, answer: Answer) -> Response[bytes]:
    headers = {"cache-control": "no-store"}
    if answer.etag is not None:
        headers["etag"] = f'"{answer.etag}"'
    if answer.location is not None:
        headers["location"] = answer.location
    content = b"" if answer.content is None else msgspec.json.encode(answer.content)
    return Response(
        content, status_code=operation.status, headers=headers, media_type="application/json"
    )
