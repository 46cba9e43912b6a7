"""The admin API as one router: every operation behind an admin token, and its own description."""

from functools import cache
from typing import Final

import msgspec
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler

from gateway import __version__
from gateway.admin import (
    accruals,
    admin_tokens,
    alerts,
    audit,
    backends,
    breakers,
    budgets,
    catalogue,
    commitments,
    decisions,
    discounts,
    efficiency,
    end_users,
    exchange_rates,
    explained_pages,
    explaining,
    forecasts,
    grants,
    idle,
    invoice_document,
    invoice_files,
    invoice_lines,
    invoice_manifest,
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
    rehearsals,
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
    own = [
        *(each for noun in plain for each in noun.RESOURCE.operations()),
        *grants.operations(),
        *keys.operations(),
        *policies.operations(),
        *prices.operations(),
        *discounts.operations(),
        *commitments.operations(),
        *catalogue.operations(),
        *exchange_rates.operations(),
        *usage.operations(),
        *requests.operations(),
        *end_users.operations(),
        *invoices.operations(),
        *issuing.operations(),
        *invoice_lines.operations(),
        *invoice_files.operations(),
        *invoice_document.operations(),
        *invoice_manifest.operations(),
        *explaining.operations(),
        *explained_pages.operations(),
        *terms.operations(),
        *repricing.operations(),
        *provider_bills.operations(),
        *reports.operations(),
        *accruals.operations(),
        *forecasts.operations(),
        *decisions.operations(),
        *replay.operations(),
        *status.operations(),
        *admin_tokens.operations(),
        *alerts.operations(),
        *breakers.operations(),
        *efficiency.operations(),
        *idle.operations(),
        *audit.operations(),
        *whoami.operations(),
    ]
    return [*own, *rehearsals.operations(own)]


def create_admin(deps: AdminDeps) -> list[HTTPRouteHandler]:
    """Everything under /admin, for an app that has `problems.HANDLERS`.

    Handlers, not a router of them: Litestar copies a router with all that is below it, and makes
    most of what it knows of a handler once for every level.
    """

    @get(OPENAPI_PATH, include_in_schema=False, sync_to_thread=False)
    def describe() -> Response[bytes]:
        return Response(_description(), media_type="application/json")

    door = Door(deps)
    return [*(route(each, deps, door, PREFIX) for each in operations()), describe]


@cache
def _description() -> bytes:
    """Made when it is first asked for, which most processes never are."""
    return msgspec.json.encode(openapi.document(operations(), PREFIX, __version__))


def create_app(deps: AdminDeps) -> Litestar:
    """The admin API alone, as an application."""
    return Litestar(
        create_admin(deps),
        exception_handlers=problems.HANDLERS,
        openapi_config=None,
        logging_config=None,
    )
