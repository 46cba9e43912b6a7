"""Prices from a maintained catalogue package, as drafts that somebody has to approve."""

import asyncio
import hashlib
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.meters import METERS, Meter
from billing.prices import picos_per_token
from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.odd_prices import odd
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.prices import PerMillion, PriceView, view
from gateway.admin.problems import ProblemError, invalid
from gateway.admin.roles import Right
from gateway.stores.sql import backends, prices, tenants
from gateway.stores.sql.rows import Price, TierPrice

CATALOGUE: Final = "genai-prices"
CURRENCY: Final = "USD"  # the catalogue's only one
_LEAST: Final = Decimal("0.0005")  # per million: outside, a unit was mistaken
_MOST: Final = Decimal(1000)
_METERS: Final[Mapping[str, Meter]] = {
    "input_mtok": Meter.INPUT,
    "cache_read_mtok": Meter.CACHE_READ,
    "cache_write_mtok": Meter.CACHE_WRITE_5M,
    "cache_write_1h_mtok": Meter.CACHE_WRITE_1H,
    "output_mtok": Meter.OUTPUT,
}


_Tiers = dict[Meter, tuple[TierPrice, ...]]


class MeterAmount(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    meter: Meter
    amount_per_million: PerMillion


class SecondSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What another source asks for the same model, such as the provider's own page."""

    name: fields.Name
    amounts: Annotated[tuple[MeterAmount, ...], Meta(min_length=1, max_length=8)]


class ImportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to look up, and what the prices are to be for. `charge`: for `as_model`, which clients
    ask for; `cost`: for `backend_id` and `upstream_model`. Both names default to the catalogue's.
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
    cross_check: SecondSource | None = None


class ImportView(msgspec.Struct, frozen=True, kw_only=True):
    """The drafts, and what of the catalogue's price they do not say."""

    items: tuple[PriceView, ...]
    source: str
    notes: Annotated[tuple[str, ...], Meta(description="what the drafts leave out")]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A catalogue's price of one model at one instant; amounts are exact, per million tokens."""

    provider: str
    model: str
    source: str
    amounts: dict[Meter, str]
    tiers: _Tiers = {}
    notes: tuple[str, ...]


class UnknownModelError(LookupError):
    """The catalogue has no such provider or model."""


class MissingCatalogueError(ImportError):
    """The catalogue package is not installed."""


def look_up(provider: str | None, model: str, at_us: int) -> Offer:
    """UnknownModelError, MissingCatalogueError. No network: the package brings its data."""
    snapshot = _package().get_snapshot()
    try:
        found_provider, found_model = snapshot.find_provider_model(model, None, provider, None)
    except LookupError as fault:
        of = f" of provider {provider!r}" if provider else ""
        raise UnknownModelError(f"the catalogue has no model {model!r}{of}") from fault
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    amounts, tiers, notes = _read(vars(found_model.get_prices(at)))
    if found_model.id != model:
        notes.insert(0, f"the catalogue knows {model!r} as {found_model.id!r}")
    if getattr(found_model, "price_variants", None):
        notes.append("other processing tiers (batch, priority ...) have prices of their own")
    return Offer(
        provider=found_provider.id,
        model=found_model.id,
        source=f"{_edition()} {found_provider.id}/{found_model.id} on {at:%Y-%m-%d}",
        amounts=amounts,
        tiers=tiers,
        notes=tuple(notes),
    )


def disagreements(offer: Offer, other: SecondSource) -> dict[Meter, str]:
    """What the second source asks otherwise, by meter, in words; a meter that only one of them
    prices is otherwise, too.
    """
    asked = {each.meter: each.amount_per_million for each in other.amounts}
    return {
        meter: f"{other.name} asks {asked.get(meter, 'nothing that it told')}"
        for meter in METERS
        if (meter in asked or meter in offer.amounts)
        and _picos(asked.get(meter)) != _picos(offer.amounts.get(meter))
    }


def _picos(amount: str | None) -> int | None:
    return None if amount is None else picos_per_token(amount)


def _read(listed: Mapping[str, Any]) -> tuple[dict[Meter, str], _Tiers, list[str]]:
    amounts: dict[Meter, str] = {}
    tiers: _Tiers = {}
    notes: list[str] = []
    for key, price in sorted(listed.items()):
        if price is None:
            continue
        meter = _METERS.get(key)
        if meter is None:
            notes.append(f"{key}: no meter of ours counts it")
            continue
        base = getattr(price, "base", price)
        fault = _fault(base)
        if fault is None:
            amounts[meter] = format(base, "f")
            tiers[meter] = tuple(_tiers(meter, price, notes))
        else:
            notes.append(f"{meter.value}: {base} per million {fault}; it is left out")
    return amounts, tiers, notes


def _fault(amount: Decimal) -> str | None:
    if not _LEAST <= amount <= _MOST:
        return f"is not between {_LEAST} and {_MOST}"
    if amount != round(amount, 6):
        return "has more than 6 decimals"
    return None


def _tiers(meter: Meter, price: Any, notes: list[str]) -> Iterator[TierPrice]:
    for tier in sorted(getattr(price, "tiers", ()), key=lambda each: int(each.start)):
        fault = _fault(tier.price)
        if fault is None:
            yield TierPrice(
                above_tokens=int(tier.start), amount_per_million=format(tier.price, "f")
            )
        else:
            notes.append(
                f"{meter.value} above {tier.start} tokens: {tier.price} per million {fault}; it is "
                "left out, and larger prompts have the price below"
            )


@cache
def _edition() -> str:
    """Version and digest of the data: what the drafts came from can be proved later."""
    data = Path(str(_package().__file__)).with_name("data.py").read_bytes()
    version = importlib.metadata.version(CATALOGUE)
    return f"{CATALOGUE} {version} sha256:{hashlib.sha256(data).hexdigest()[:16]}"


def _package() -> ModuleType:
    """An extra: not every installation has it, and none needs it before somebody imports prices."""
    try:
        return importlib.import_module("genai_prices.data_snapshot")
    except ImportError:
        raise MissingCatalogueError(CATALOGUE) from None


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
    otherwise = {} if body.cross_check is None else disagreements(offer, body.cross_check)
    drafts = [
        msgspec.structs.replace(draft, source=f"{draft.source}; {told}")
        if (told := otherwise.get(Meter(draft.meter)))
        else draft
        for draft in _drafts(body, offer, at_us, now_us, call.principal.id)
    ]

    def work(connection: Connection) -> tuple[tuple[Price, ...], list[str]]:
        _check(connection, body)
        dated = body.effective_from is not None
        doubts = [told for draft in drafts if (told := odd(connection, draft)) is not None]
        return tuple(_kept(call, connection, draft, dated) for draft in drafts), doubts

    kept, doubts = await call.change(work)
    differ = (
        f"{meter.value}: {told}, the catalogue {offer.amounts.get(meter, 'nothing')}: find out who "
        "is right before you approve it"
        for meter, told in otherwise.items()
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
            amount_per_million=offer.amounts[meter],
            context_tiers=offer.tiers.get(meter, ()),
            currency=CURRENCY,
            effective_from_us=at_us,
            state="draft",
            source=offer.source,
            drafted_by=drafted_by,
            created_at_us=now_us,
        )
        for meter in METERS
        if meter in offer.amounts
    ]


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
