"""The admin API as one router: every operation behind an admin token, and its own description."""

from typing import Final

import msgspec
from litestar import Litestar, Response, Router, get

from gateway import __version__
from gateway.admin import (
    admin_tokens,
    alerts,
    audit,
    backends,
    breakers,
    budgets,
    catalogue,
    decisions,
    discounts,
    efficiency,
    end_users,
    exchange_rates,
    explaining,
    grants,
    invoice_files,
    invoice_lines,
    invoices,
    issuing,
    keys,
    limits,
    models,
    openapi,
    policies,
    prices,
    problems,
    provider_bills,
    replay,
    reports,
    repricing,
    requests,
    status,
    teams,
    tenants,
    terms,
    usage,
    whoami,
)
from gateway.admin.deps import AdminDeps
from gateway.admin.door import Door
from gateway.admin.operation import Operation
from gateway.admin.route import route

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
        *discounts.operations(),
        *catalogue.operations(),
        *exchange_rates.operations(),
        *usage.operations(),
        *requests.operations(),
        *end_users.operations(),
        *invoices.operations(),
        *issuing.operations(),
        *invoice_lines.operations(),
        *invoice_files.operations(),
        *explaining.operations(),
        *terms.operations(),
        *repricing.operations(),
        *provider_bills.operations(),
        *reports.operations(),
        *decisions.operations(),
        *replay.operations(),
        *status.operations(),
        *admin_tokens.operations(),
        *alerts.operations(),
        *breakers.operations(),
        *efficiency.operations(),
        *audit.operations(),
        *whoami.operations(),
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

    door = Door(deps)
    guarded = Router(PREFIX, route_handlers=[route(each, deps, door) for each in own])
    return Router("/", route_handlers=[guarded, describe], exception_handlers=problems.HANDLERS)


def create_app(deps: AdminDeps) -> Litestar:
    """The admin API alone, as an application."""
    return Litestar(
        [create_admin(deps)],
        exception_handlers=problems.HANDLERS,
        openapi_config=None,
        logging_config=None,
    )
