"""The terms of a tenant's invoices: who bills whom, by which rules."""

import re
from datetime import date
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing import terms as billing_terms
from billing.money import parse_picos
from billing.terms import Terms
from gateway.admin import fields
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import invalid, missing, together
from gateway.admin.resource import returned
from gateway.admin.roles import Right
from gateway.stores.sql import drafts, tenants, terms
from gateway.stores.sql.exact import require_room
from gateway.stores.sql.terms import TenantTerms

Words = Annotated[str, Meta(max_length=200)]
Series = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z][A-Z0-9]{0,15}(-[A-Z0-9]{1,16}){0,2}$",
        extra={"rule": "what numbers begin with, such as INV or ACME-EU"},
    ),
]
Day = Annotated[
    str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", extra={"rule": "a day such as 2026-11-01"})
]
_ANY: Final = "2026-01-01"
_NOTE: Final = re.compile(r"(^|-)CN$")


class PartyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Words = ""
    address: Annotated[tuple[Words, ...], Meta(max_length=8)] = ()
    tax_id: Words = ""


class TermsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`tax` is printed as it is given: no tax is computed. `currency` is of the invoices, where it
    is not the tenant's; an `exchange-rates` entry is needed for it. `minimum` is of a month, in the
    tenant's currency; from `minimum_from`, a day of the tenant's calendar, that month pays by its
    days.
    """

    issuer: PartyBody = PartyBody(name="Meterhouse")
    recipient: PartyBody = PartyBody()
    purchase_order: Words = ""
    payment_days: Annotated[int, Meta(ge=0, le=365)] | None = None
    currency: fields.Currency | None = None
    tax: Annotated[dict[Words, Words], Meta(max_length=16)] | None = None
    grace_days: Annotated[int, Meta(ge=0, le=60)] = 0
    series: Series = "INV"
    four_eyes: bool = False
    minimum: fields.Decimal | None = None
    minimum_from: Day | None = None


class TermsView(TermsBody, frozen=True, kw_only=True):
    tenant_id: str


async def _read(call: Call) -> Answer:
    def work(connection: Connection) -> TenantTerms:
        if not tenants.RECORDS.exists(connection, id=call.id):
            raise missing("tenant", call.id)
        return terms.of(connection, call.id)

    return _shown(await call.read(work))


async def _replace(call: Call) -> Answer:
    body = returned(call, TermsBody, {"tenant_id"})
    given = msgspec.convert(msgspec.to_builtins(body), Terms)

    def work(connection: Connection) -> TenantTerms:
        try:
            tenant = drafts.locked_tenant(connection, call.id)
        except drafts.UnknownTenantError:
            raise missing("tenant", call.id) from None
        before = terms.of(connection, call.id)
        call.require_version(before.version)
        _check(given, tenant.currency)
        minimum = parse_picos(given.minimum or "0")
        require_room(connection.dialect.name, minimum, "minimum: what a month asks for")
        if given == before.terms:
            return before
        after = terms.put(connection, before, given, call.principal.id)
        call.changed(connection, "tenants", before, after)
        return after

    return _shown(await call.write(work))


def operations() -> list[Operation]:
    path = "/tenants/{id}/billing"
    return [
        Operation(
            "GET", path, "invoices", "Read the terms of a tenant's invoices", _read,
            right=Right.INVOICES_READ, answers=TermsView, etag=True, refusals=(404,),
        ),
        Operation(
            "PUT", path, "invoices", "Replace the terms of a tenant's invoices", _replace,
            right=Right.INVOICES_ISSUE, body=TermsBody, answers=TermsView, etag=True,
            if_match=True, refusals=(404, 412, 422),
            description="In force for drafts at once. What is issued keeps the terms it was issued "
            "under.",
        ),
    ]  # fmt: skip


def _check(given: Terms, currency: str) -> None:
    together(
        lambda: given.currency and fields.currency(given.currency),
        lambda: fields.checked("minimum", billing_terms.check, given, currency),
        lambda: fields.checked("minimum_from", date.fromisoformat, given.minimum_from or _ANY),
        lambda: _check_series(given.series),
    )


def _check_series(series: str) -> None:
    if _NOTE.search(series):
        raise invalid("series", "what ends in CN is the series of credit notes", "such as INV")


def _shown(row: TenantTerms) -> Answer:
    shown = msgspec.to_builtins(row.terms)
    return Answer(msgspec.convert(shown | {"tenant_id": row.id}, TermsView), row.version)
