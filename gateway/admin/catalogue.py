"""Prices from a maintained catalogue package, as drafts that somebody has to approve."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.meters import METERS, Meter
from billing.prices import picos_per_token
from billing.service_tiers import ServiceTier
from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.odd_prices import odd
from gateway.admin.offers import (
    CATALOGUE,
    CURRENCY,
    MissingCatalogueError,
    Offer,
    UnknownModelError,
    look_up,
)
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.prices import PerMillion, PriceView, view
from gateway.admin.problems import ProblemError, invalid
from gateway.admin.roles import Right
from gateway.stores.sql import backends, prices, tenants
from gateway.stores.sql.rows import Price

_STANDARD: Final = ServiceTier.STANDARD

Asked = tuple[ServiceTier, Meter]


class MeterAmount(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    meter: Meter
    service_tier: ServiceTier = ServiceTier.STANDARD
    amount_per_million: PerMillion


class SecondSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What another source asks for the same model, such as the provider's own page."""

    name: fields.Name
    amounts: Annotated[tuple[MeterAmount, ...], Meta(min_length=1, max_length=32)]


class ImportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to look up, and what the prices are to be for. `charge`: for `as_model`, which clients
    ask for; `cost`: for `backend_id` and `upstream_model`. Both names default to the catalogue's.
    Other `service_tiers` come only where they are named: whatever has a price can be asked for.
    """

    model: fields.ModelName
    provider: fields.Name | None = None
    catalogue: Literal["genai-prices"] = "genai-prices"
    book: Literal["charge", "cost"] = "charge"
    as_model: fields.ModelName | None = None
    tenant_id: fields.Id | None = None
    backend_id: fields.Id | None = None
    upstream_model: fields.Name | None = None
    effective_from: fields.Instant | None = None  # now
    service_tiers: Annotated[tuple[ServiceTier, ...], Meta(min_length=1, max_length=4)] = (
        _STANDARD,
    )
    cross_check: SecondSource | None = None


class ImportView(msgspec.Struct, frozen=True, kw_only=True):
    """The drafts, and what of the catalogue's price they do not say."""

    items: tuple[PriceView, ...]
    source: str
    notes: Annotated[tuple[str, ...], Meta(description="what the drafts leave out")]


def disagreements(offer: Offer, other: SecondSource) -> dict[Asked, str]:
    """What the second source asks otherwise, by tier and meter, in words; a meter that only one of
    them prices is otherwise, too. Tiers that it says nothing of are left alone.
    """
    asked = {(each.service_tier, each.meter): each.amount_per_million for each in other.amounts}
    found = {(tier, meter): amount for tier, meter, amount, _ in offer.each()}
    told = {_STANDARD, *(tier for tier, _ in asked)} & {tier for tier, _ in found}
    return {
        (tier, meter): f"{other.name} asks {asked.get((tier, meter), 'nothing that it told')}"
        for tier in ServiceTier
        for meter in METERS
        if tier in told and _picos(asked.get((tier, meter))) != _picos(found.get((tier, meter)))
    }


def _picos(amount: str | None) -> int | None:
    return None if amount is None else picos_per_token(amount)


async def _import(call: Call) -> Answer:
    body = call.body(ImportBody)
    now_us = clock.now_us()
    at_us = now_us
    if body.effective_from is not None:
        at_us = fields.instant(body.effective_from, "effective_from")
    try:
        offer = await asyncio.to_thread(look_up, body.provider, body.model, at_us)
    except UnknownModelError as fault:
        raise invalid("model", str(fault)) from None
    except MissingCatalogueError:
        raise ProblemError(
            422,
            "catalogue_missing",
            "the catalogue is not installed: pip install 'meterhouse[catalogue]'",
        ) from None
    if Meter.INPUT not in offer.amounts:
        raise invalid("model", f"{offer.model} has no usable input price: {'; '.join(offer.notes)}")
    offer = _wanted(offer, body.service_tiers)
    otherwise = {} if body.cross_check is None else disagreements(offer, body.cross_check)
    drafts = [
        msgspec.structs.replace(draft, source=f"{draft.source}; {told}")
        if (told := otherwise.get((ServiceTier(draft.service_tier), Meter(draft.meter))))
        else draft
        for draft in _drafts(body, offer, at_us, now_us, call.principal.id)
    ]

    def work(connection: Connection) -> tuple[tuple[Price, ...], list[str]]:
        _check(connection, body)
        dated = body.effective_from is not None
        doubts = [told for draft in drafts if (told := odd(connection, draft)) is not None]
        return tuple(_kept(call, connection, draft, dated) for draft in drafts), doubts

    kept, doubts = await call.change(work)
    found = {(tier, meter): amount for tier, meter, amount, _ in offer.each()}
    differ = (
        f"{_words(of)}: {told}, the catalogue {found.get(of, 'nothing')}: find out who is right "
        "before you approve it"
        for of, told in otherwise.items()
    )
    notes = (
        *offer.notes,
        *differ,
        *(f"{told}: look twice before you approve it" for told in doubts),
    )
    return Answer(ImportView(items=tuple(map(view, kept)), source=offer.source, notes=notes))


def operations() -> list[Operation]:
    return [
        Operation(
            "POST",
            "/prices/import",
            "prices",
            "Draft prices from a catalogue",
            _import,
            right=Right.PRICES_CHANGE,
            status=201,
            body=ImportBody,
            answers=ImportView,
            refusals=(422,),
            description="Drafts change nothing until each is approved. A draft that an earlier "
            "import of the same left is brought up to date instead of made again.",
        )
    ]


def _check(connection: Connection, body: ImportBody) -> None:
    charge = body.book == "charge"
    for field in ("backend_id", "upstream_model") if charge else ("as_model", "tenant_id"):
        if getattr(body, field) is not None:
            raise invalid(field, f"a {body.book} price has none")
    if not charge and body.backend_id is None:
        raise invalid("backend_id", "a cost price needs it")
    if body.backend_id is not None and not backends.RECORDS.exists(connection, id=body.backend_id):
        raise invalid("backend_id", f"there is no backend {body.backend_id!r}")
    if body.tenant_id is None:
        return
    tenant = tenants.RECORDS.one(connection, id=body.tenant_id)
    if tenant is None:
        raise invalid("tenant_id", f"there is no tenant {body.tenant_id!r}")
    if tenant.currency != CURRENCY:
        raise invalid("tenant_id", f"the catalogue is in {CURRENCY}; {tenant.currency} is kept")


def _drafts(
    body: ImportBody, offer: Offer, at_us: int, now_us: int, drafted_by: str
) -> list[Price]:
    charge = body.book == "charge"
    return [
        Price(
            id=ids.new("price"),
            book=body.book,
            model=(body.as_model or offer.model) if charge else None,
            tenant_id=body.tenant_id,
            backend_id=body.backend_id,
            upstream_model=None if charge else body.upstream_model or offer.model,
            meter=meter.value,
            service_tier=tier.value,
            amount_per_million=amount,
            context_tiers=sizes,
            currency=CURRENCY,
            effective_from_us=at_us,
            state="draft",
            source=offer.source,
            drafted_by=drafted_by,
            created_at_us=now_us,
        )
        for tier, meter, amount, sizes in offer.each()
    ]


def _wanted(offer: Offer, asked: Sequence[ServiceTier]) -> Offer:
    """What is asked for of it; a note says what is not, and what is not there."""
    left = [tier.value for tier in offer.others if tier not in asked]
    lacking = [tier.value for tier in ServiceTier if tier in asked and tier not in offer.others]
    notes = list(offer.notes)
    if left:
        notes.append(f"{', '.join(left)}: has prices of its own; name it in service_tiers")
    notes += [f"{tier}: the catalogue has no such prices" for tier in lacking if tier != _STANDARD]
    others = {tier: found for tier, found in offer.others.items() if tier in asked}
    wanted = msgspec.structs.replace(offer, others=others, notes=tuple(notes))
    return wanted if _STANDARD in asked else msgspec.structs.replace(wanted, amounts={}, tiers={})


def _words(of: Asked) -> str:
    tier, meter = of
    return meter.value if tier is _STANDARD else f"{meter.value} ({tier.value})"


def _said(draft: Price) -> tuple[object, ...]:
    """What a draft is worth keeping for: its price, and what a second source said of it."""
    return draft.amount_per_million, draft.context_tiers, draft.source.partition("; ")[2]


def _kept(call: Call, connection: Connection, draft: Price, dated: bool) -> Price:
    """The draft as it is kept: in the place of one that an earlier import left. A date that was
    asked for makes it another one.
    """
    where = {"effective_from_us": draft.effective_from_us} if dated else {}
    drafted = prices.of_same_subject(connection, draft, state="draft", **where)
    before = next((each for each in drafted if each.source.startswith(CATALOGUE)), None)
    if before is None:
        call.changed(connection, "prices", None, draft)
        return prices.RECORDS.add(connection, draft)
    if _said(before) == _said(draft):
        return before
    mended = msgspec.structs.replace(
        draft, id=before.id, created_at_us=before.created_at_us, version=before.version + 1
    )
    call.changed(connection, "prices", before, mended)
    return prices.RECORDS.replace(connection, mended)
