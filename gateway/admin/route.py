"""From an Operation to a route: who asks is known first, what he may is known second, and only then
is his body read.
"""

from dataclasses import replace
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler

from gateway.admin import access, bodies
from gateway.admin.access import RefusedError
from gateway.admin.deps import AdminDeps
from gateway.admin.door import Door, Origin
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import malformed


def route(operation: Operation, deps: AdminDeps, door: Door, prefix: str) -> HTTPRouteHandler:
    """The operation as a Litestar handler, under the prefix. Bodies are decoded here, because
    Litestar is lax; not before it is known who asks, and that the role may ask for such a thing at
    all.
    """

    async def serve(request: Request[Any, Any, Any]) -> Response[Any]:
        origin = Origin.of(request)
        call = Call(
            deps=deps,
            operation=operation,
            principal=await door.enter(request, origin),
            origin=origin,
            params={name: str(value) for name, value in request.path_params.items()},
            query=None,
            tree=None,
            if_match=request.headers.get("if-match"),
            accept=request.headers.get("accept", ""),
            repeat_key=request.headers.get("idempotency-key") if operation.repeatable else None,
        )
        try:
            answer = await _served(request, call)
        except RefusedError as problem:
            door.refused(call.principal, origin, call.name, problem.code)
            raise
        return _response(call, answer)

    return HTTPRouteHandler(
        prefix + operation.path.replace("{id}", "{id:str}"),
        http_method=[operation.method],  # type: ignore[list-item]
        status_code=200,  # each Response carries its own
        include_in_schema=False,  # gateway.admin.openapi describes it
        request_max_body_size=bodies.MOST_BYTES,
        media_type=operation.media_types[0],  # Litestar's streams take it from here
    )(serve)


async def _served(request: Request[Any, Any, Any], call: Call) -> Answer:
    limited = not access.unlimited(call.principal)
    if limited:
        await call.read(lambda connection: access.require(connection, call))
    asked = replace(
        call,
        query=_query(request, call.operation.query),
        tree=await _body(request, call.operation),
    )
    if limited and asked.tree:
        await asked.read(lambda connection: access.require_references(connection, asked))
    return await asked.operation.run(asked)


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
    found = bodies.convert(dict(given), kind, strict=False)
    for field in msgspec.structs.fields(kind):
        if field.encode_name in names and getattr(found, field.name) is None:
            raise malformed(field.encode_name, "null is no value; leave the parameter out")
    return found


def _response(call: Call, answer: Answer) -> Response[Any]:
    headers = {"x-request-id": call.origin.request_id}
    if answer.ready is not None:
        answer.ready.headers.update(headers)
        return answer.ready
    headers["cache-control"] = "no-store"
    if answer.etag is not None:
        headers["etag"] = f'"{answer.etag}"'
    if answer.location is not None:
        headers["location"] = answer.location
    content = b"" if answer.content is None else msgspec.json.encode(answer.content)
    return Response(
        content, status_code=call.operation.status, headers=headers, media_type="application/json"
    )
