"""The admin API as one router: every operation behind the admin token, and its own description."""

import hmac
from typing import Any, Final

import msgspec
from litestar import Litestar, Response, Router, get
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from gateway import __version__
from gateway.admin import (
    backends,
    budgets,
    catalogue,
    grants,
    invoices,
    keys,
    limits,
    models,
    openapi,
    policies,
    prices,
    problems,
    status,
    teams,
    tenants,
    usage,
)
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Operation, route
from gateway.admin.problems import ProblemError

PREFIX: Final = "/admin/v1"
OPENAPI_PATH: Final = "/admin/openapi.json"


def operations() -> list[Operation]:
    plain = (tenants, teams, backends, models, budgets, limits)
    return [
        *(each for noun in plain for each in noun.RESOURCE.operations()),
        *grants.operations(),
        *keys.operations(),
        *policies.operations(),
        *prices.operations(),
        *catalogue.operations(),
        *usage.operations(),
        *invoices.operations(),
        *status.operations(),
    ]


def create_admin(deps: AdminDeps) -> Router:
    """Everything under /admin. Mount it in an app that has `problems.HANDLERS`, so that unknown
    paths and methods answer problem+json too.
    """
    own = operations()
    description = msgspec.json.encode(openapi.document(own, PREFIX, __version__))

    @get(OPENAPI_PATH, include_in_schema=False, sync_to_thread=False)
    def describe() -> Response[bytes]:
        return Response(description, media_type="application/json")

    guarded = Router(
        PREFIX,
        route_handlers=[route(each, deps) for each in own],
        guards=[_token_guard(deps.admin_token)],
    )
    return Router("/", route_handlers=[guarded, describe], exception_handlers=problems.HANDLERS)


def create_app(deps: AdminDeps) -> Litestar:
    """The admin API alone, as an application."""
    return Litestar(
        [create_admin(deps)],
        exception_handlers=problems.HANDLERS,
        openapi_config=None,
        logging_config=None,
    )


def _token_guard(admin_token: str) -> Any:
    """Compares digests of equal length in constant time; an application key never fits."""
    key = hmac.digest(b"admin token", admin_token.encode(), "sha256")

    def guard(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
        sent = connection.headers.getall("authorization", [])
        scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
        presented = hmac.digest(b"admin token", token.strip().encode(), "sha256")
        if scheme.lower() != "bearer" or not hmac.compare_digest(presented, key):
            raise ProblemError(
                401,
                "invalid_admin_token",
                "send the admin token as `Authorization: Bearer ...`",
                headers={"www-authenticate": "Bearer"},
            )

    return guard
