"""The client surfaces: which path means which operation.

A model is reached through its door, the exact bytes of its path, and through nothing else: no
framework code stands between the socket and `serve`. Everything beside the doors is a route of the
framework, which forgives a trailing slash and another spelling, hence the checks here.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import unquote

from litestar import asgi
from litestar.enums import ScopeType
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from gateway import ids
from gateway.dataplane.arrival import read_head
from gateway.dataplane.authenticate import authenticate
from gateway.dataplane.envelope import CHAT, COMPLETIONS, EMBEDDINGS
from gateway.dataplane.replies import send_json, send_rendered
from gateway.dataplane.request import DataPlane
from gateway.dataplane.snapshot import Principal
from gateway.dataplane.standing import usage_of
from gateway.errors import INTERNAL, Rendered, openai_error, render_openai
from gateway.stores.sql.rows import Model
from policies.decision import Deny, DenyCode

Reader = Callable[[DataPlane, Principal, HTTPScope], Awaitable[object]]

_LOG: Final = logging.getLogger(__name__)
INFERENCE: Final = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/embeddings": EMBEDDINGS,
}


def doors(plane: DataPlane) -> Mapping[bytes, ASGIApp]:
    """What answers a request whose path is these bytes: the only ways to a model."""
    return {
        path.encode(): _inference(plane, path, operation) for path, operation in INFERENCE.items()
    }


def routes(plane: DataPlane) -> list[ASGIRouteHandler]:
    """Every route of the data listener that speaks of a model. Those named like a door get what is
    spelt differently.
    """
    return [
        *(_no_door(path) for path in INFERENCE),
        _reading(plane, "/v1/models", show_models, is_mount=True),
        _reading(plane, "/v1/usage", show_usage),
    ]


def _inference(plane: DataPlane, path: str, operation: str) -> ASGIApp:
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        http: HTTPScope = scope  # type: ignore[assignment] # what comes to a door is HTTP
        try:
            if http["method"] == "POST":
                await plane.serve(operation, path, http, receive, send)
            else:
                await refuse_route(http, send, "POST", known=True)
        except Exception as fault:  # noqa: BLE001 - answered, like any other of ours
            await send_rendered(send, unforeseen(fault), [])

    return handle


def unforeseen(fault: Exception) -> Rendered:
    """A bug of ours, logged, as its client sees it. To send it after an answer has begun is an
    error of its own, which closes the connection: a cut answer never ends cleanly.
    """
    request_id = ids.new("req")
    _LOG.error("request %s failed inside the gateway", request_id, exc_info=fault)
    return render_openai(INTERNAL, request_id)


def _no_door(path: str) -> ASGIRouteHandler:
    @asgi(path, copy_scope=False)
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
        if scope["type"] == ScopeType.HTTP:
            await refuse_route(scope, send, "POST", known=False)

    return handle


def _reading(
    plane: DataPlane, path: str, answer: Reader, *, is_mount: bool = False
) -> ASGIRouteHandler:
    @asgi(path, copy_scope=False, is_mount=is_mount)
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
        if scope["type"] != ScopeType.HTTP:
            return
        http = scope
        if http["method"] not in ("GET", "HEAD"):
            await refuse_route(http, send, "GET", known=True)
            return
        arrival = read_head(http)
        principal = authenticate(plane.snapshot, plane.peppers, arrival)
        if isinstance(principal, Deny):
            found: object = principal
        else:
            found = await answer(plane, principal, http)
        if isinstance(found, Deny):
            await send_rendered(send, render_openai(found, arrival.request_id), [])
        else:
            await send_json(send, 200, found, arrival.request_id)

    return handle


async def show_models(plane: DataPlane, principal: Principal, scope: HTTPScope) -> object:
    """`GET /v1/models`: what this key may ask for; `GET /v1/models/{id}`: one of them. A name may
    contain slashes.
    """
    models = plane.snapshot.allowed_models(principal)
    name = unquote(_path(scope).removeprefix("/v1/models").removeprefix("/"))
    if not name:
        return {"object": "list", "data": [_shown(model) for model in models]}
    for model in models:
        if model.name == name:
            return _shown(model)
    if name in plane.snapshot.models:
        return Deny(
            DenyCode.MODEL_NOT_ALLOWED,
            f"this key may not use {name!r}; GET /v1/models lists what it may use",
            param="model",
        )
    return Deny(
        DenyCode.MODEL_NOT_FOUND,
        f"the model {name[:120]!r} does not exist; GET /v1/models lists what does",
        param="model",
    )


async def show_usage(plane: DataPlane, principal: Principal, _: HTTPScope) -> object:
    """`GET /v1/usage`: what this key has used and what is left in its own budgets and limits."""
    return await usage_of(plane.snapshot, plane.readers, principal)


def _path(scope: HTTPScope) -> str:
    """The path as it was sent: the framework has already forgiven a trailing slash in `path`."""
    return scope["raw_path"].decode("latin-1").partition("?")[0]


def _shown(model: Model) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_at_us // 1_000_000,
        "owned_by": "meterhouse",
        "capabilities": list(model.capabilities),
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
    }


async def refuse_route(scope: HTTPScope, send: Send, allow: str, *, known: bool) -> None:
    """405 for a wrong method on a path we have, 404 for a path we do not have."""
    request_id = ids.new("req")
    if known:
        message = f"{scope['method']} is not possible on {_path(scope)[:200]}; use {allow}"
        status, code = 405, "method_not_allowed"
    else:
        message = f"there is nothing at {_path(scope)[:200]}; the API begins at /v1"
        status, code = 404, "not_found"
    body = openai_error(message, "invalid_request_error", None, code)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
    ]
    if known:
        headers.append((b"allow", allow.encode()))
    await send_rendered(send, Rendered(status, headers, body), [])
