"""What a maintained catalogue package asks for a model on a day, in our meters and tiers."""

import hashlib
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from billing.meters import METERS, Meter
from billing.service_tiers import ServiceTier
from gateway.stores.sql.rows import TierPrice

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


# By which of its flags the catalogue means a tier. The right name under the wrong key is no flag to
# it: it answers the standard price.
_FLAGS: Final[Mapping[ServiceTier, Mapping[str, str]]] = {
    ServiceTier.BATCH: {"processing": "batch"},
    ServiceTier.FLEX: {"service_tier": "flex"},
    ServiceTier.PRIORITY: {"service_tier": "priority"},
}
_DEFAULT: Final[Mapping[str, str]] = {"service_tier": "default"}  # what it calls the standard tier
_STANDARD: Final = ServiceTier.STANDARD

_Tiers = dict[Meter, tuple[TierPrice, ...]]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A catalogue's price of one model at one instant; amounts are exact, per million tokens."""

    provider: str
    model: str
    source: str
    amounts: dict[Meter, str]
    tiers: _Tiers = {}
    others: dict[ServiceTier, tuple[dict[Meter, str], _Tiers]] = {}  # than the standard tier
    notes: tuple[str, ...]

    def each(self) -> Iterator[tuple[ServiceTier, Meter, str, tuple[TierPrice, ...]]]:
        """Every price, the standard tier's first."""
        standard = {_STANDARD: (self.amounts, self.tiers)}
        for tier, (amounts, tiers) in (standard | self.others).items():
            for meter in METERS:
                if meter in amounts:
                    yield tier, meter, amounts[meter], tiers.get(meter, ())


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
    others = _others(found_model, at, notes)
    notes += _conditions(found_model, at)
    if found_model.id != model:
        notes.insert(0, f"the catalogue knows {model!r} as {found_model.id!r}")
    return Offer(
        provider=found_provider.id,
        model=found_model.id,
        source=f"{_edition()} {found_provider.id}/{found_model.id} on {at:%Y-%m-%d}",
        amounts=amounts,
        tiers=tiers,
        others=others,
        notes=tuple(notes),
    )


def _conditions(model: Any, at: datetime) -> Iterator[str]:
    """What the catalogue knows that the prices of one instant do not say."""
    listed = model.prices if isinstance(model.prices, list) else []
    known = [each.constraint for each in listed if each.constraint is not None]
    begins = {str(each.start_date) for each in known if hasattr(each, "start_date")}
    later = sorted(day for day in begins if day > f"{at:%Y-%m-%d}")
    if later:
        days = ", ".join(later)
        yield f"the catalogue has other prices from {days} on: import them with that effective_from"
    if any(hasattr(each, "start_time") for each in known):
        yield "the catalogue's price depends on the time of day: this is the one of that instant"


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


def _others(
    model: Any, at: datetime, notes: list[str]
) -> dict[ServiceTier, tuple[dict[Meter, str], _Tiers]]:
    """What it asks for in other tiers on that day, whole: a meter that a tier says nothing of costs
    there what it does in the standard one.
    """
    active = [
        each.when
        for each in getattr(model, "price_variants", None) or ()
        if each.constraint is None or each.constraint.active(at)
    ]
    found, told = {}, frozenset(notes)
    for tier, flag in _FLAGS.items():
        if flag in active:
            amounts, tiers, of_tier = _read(vars(model.get_prices(at, dict(flag))))
            found[tier] = amounts, tiers
            notes += [f"{tier.value}: {note}" for note in of_tier if note not in told]
    for flag in active:
        if flag != _DEFAULT and flag not in _FLAGS.values():
            named = ", ".join(f"{key} {value}" for key, value in flag.items())
            notes.append(f"{named}: has prices of its own, which no tier of ours is for")
    return found


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
