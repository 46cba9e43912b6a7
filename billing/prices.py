"""Effective-dated, immutable prices, and the rate card that is frozen at admission."""

import hashlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from billing.discounts import Discount, discounted, in_force
from billing.meters import METERS, Meter
from billing.money import format_decimal, parse_decimal
from billing.quantity import Schedule
from billing.service_tiers import ServiceTier, versioned

_PRICE_DECIMALS: Final = 6  # so that picos per token are whole
MAX_PICOS_PER_TOKEN: Final = 2**53 - 1


class Rate(msgspec.Struct, frozen=True, array_like=True):
    """One meter's price on a card: picos per token and the version it came from. With a `schedule`
    that is what a token is booked at, and the month's total decides what it is billed at.
    """

    meter: Meter
    picos_per_token: int
    version: str
    schedule: Schedule | None = None
    list_picos: int | None = None  # what the list asks for, where a contract asks for another price
    list_schedule: Schedule | None = None  # what it asks for step by step, where all have less off


class RateCard(msgspec.Struct, frozen=True, array_like=True):
    """The prices in force for one subject at one instant. Content-addressed: it never changes."""

    id: str
    currency: str
    rates: tuple[Rate, ...]


class Band(msgspec.Struct, frozen=True):
    """The card for prompts of more than `above_tokens` tokens, cached ones too, up to the next
    band's. A request is on one card as a whole, its answer too.
    """

    above_tokens: int
    card: RateCard


class ContextTier(msgspec.Struct, frozen=True):
    """A meter's price where the prompt has more than `above_tokens` tokens."""

    above_tokens: int
    picos_per_token: int


class PriceVersion(msgspec.Struct, frozen=True):
    """One immutable price. The amount per million x 10^6 is picos per token: exact."""

    id: str
    book: str  # charge | cost
    model: str | None  # charge: what clients ask for
    tenant_id: str | None  # charge: a tenant's contract price; None = the list
    backend_id: str | None  # cost
    upstream_model: str | None  # cost; None = whatever the backend serves
    meter: Meter
    picos_per_token: int
    currency: str
    effective_from_us: int
    context_tiers: tuple[ContextTier, ...] = ()  # by rising size
    schedule: Schedule | None = None  # instead of them: by the quantity of a month
    service_tier: ServiceTier = ServiceTier.STANDARD

    def at(self, above_tokens: int) -> Rate:
        """The price of prompts of just more than `above_tokens`. Tiers are named in the version:
        `price_01@priority>200000`.
        """
        whole = versioned(self.id, self.service_tier)
        if self.schedule is not None:
            return Rate(self.meter, self.schedule.dearest_picos, whole, self.schedule)
        found, name = self.picos_per_token, whole
        for tier in self.context_tiers:
            if tier.above_tokens <= above_tokens:
                found, name = tier.picos_per_token, f"{whole}>{tier.above_tokens}"
        return Rate(self.meter, found, name)


def picos_per_token(amount_per_million: str) -> int:
    """Exact, because a price has at most 6 decimals. ValueError for more, for a negative price, or
    for one above nine thousand million a million tokens.
    """
    picos = parse_decimal(amount_per_million, _PRICE_DECIMALS)
    if picos < 0:
        raise ValueError(f"{amount_per_million!r} is negative; a price is zero or more")
    if picos > MAX_PICOS_PER_TOKEN:
        raise ValueError(f"{amount_per_million!r} a million tokens is beyond what can be counted")
    return picos


def amount_per_million(picos_per_token: int) -> str:
    """The price as it is written in a price book; exact."""
    return format_decimal(picos_per_token, _PRICE_DECIMALS)


class PriceBook:
    """All approved prices of one configuration; answers the card in force at an instant.

    Each service tier has prices of its own, and none stands in for another's: a tier without an
    `input` price has no card, and what a contract asks in one tier says nothing of the others.

    A version is in force from its `effective_from_us` until the next one of its subject and meter
    begins; of two that begin together the one with the later id holds. Nothing here knows what time
    it is: the instant is that of admission (I4), so the answer to a question never changes.
    """

    def __init__(
        self, versions: Iterable[PriceVersion], discounts: Iterable[Discount] = ()
    ) -> None:
        self._discounts: dict[str, list[Discount]] = defaultdict(list)
        for discount in discounts:
            self._discounts[discount.tenant_id].append(discount)
        self._versions: dict[_Subject, list[PriceVersion]] = defaultdict(list)
        for version in sorted(versions, key=lambda v: (v.effective_from_us, v.id)):
            self._versions[_subject_of(version)].append(version)
        standard = ServiceTier.STANDARD
        self.tiers: Final = frozenset(
            tier for _, _, _, tier in self._versions if tier is not standard
        )
        self._starts = sorted(
            {v.effective_from_us for group in self._versions.values() for v in group}
            | {d.effective_from_us for group in self._discounts.values() for d in group}
        )
        self._timelines: dict[tuple[_Subject, str | None], _Timeline] = {}

    def charge_card(
        self,
        tenant_id: str,
        model: str,
        at_us: int,
        currency: str | None = None,
        tier: ServiceTier = ServiceTier.STANDARD,
    ) -> RateCard | None:
        """What a team pays for the smallest prompts."""
        return _first(self.charge_bands(tenant_id, model, at_us, currency, tier))

    def charge_bands(
        self,
        tenant_id: str,
        model: str,
        at_us: int,
        currency: str | None = None,
        tier: ServiceTier = ServiceTier.STANDARD,
    ) -> tuple[Band, ...]:
        """What a team pays, by the size of the prompt; the first band is above 0. Meter by meter
        the tenant's contract price with its tiers, else the list price with its own; nothing where
        no `input` price is in force. The tenant's discounts are taken off the list; a contract
        price stands as it is. With `currency`, prices in any other are not there; without it the
        input price decides, and a meter priced in another currency has no price.
        """
        listed: _Subject = ("charge", None, model, tier)
        contract: _Subject = ("charge", tenant_id, model, tier)
        if contract in self._versions or (
            tenant_id in self._discounts and listed in self._versions
        ):
            return self._bands(contract, listed, at_us, currency)
        return self._bands(listed, listed, at_us, currency)

    def cost_card(
        self,
        backend_id: str,
        upstream_model: str,
        at_us: int,
        currency: str | None = None,
        tier: ServiceTier = ServiceTier.STANDARD,
    ) -> RateCard | None:
        """What a backend costs us for the smallest prompts."""
        return _first(self.cost_bands(backend_id, upstream_model, at_us, currency, tier))

    def cost_bands(
        self,
        backend_id: str,
        upstream_model: str,
        at_us: int,
        currency: str | None = None,
        tier: ServiceTier = ServiceTier.STANDARD,
    ) -> tuple[Band, ...]:
        """What a backend costs us, by the same rules: meter by meter the price of this upstream
        model, else what the backend costs whatever it serves (`billing.tco`). Nothing where we know
        no `input` price; other tiers than the standard one are priced by upstream model only.
        """
        whole: _Subject = ("cost", backend_id, None, ServiceTier.STANDARD)
        of_model: _Subject = ("cost", backend_id, upstream_model, tier)
        if tier is not ServiceTier.STANDARD:
            return self._bands(of_model, of_model, at_us, currency)
        if of_model in self._versions:
            return self._bands(of_model, whole, at_us, currency)
        return self._bands(whole, whole, at_us, currency)

    def box_bands(
        self, backend_id: str, at_us: int, currency: str | None = None
    ) -> tuple[Band, ...]:
        """What a backend costs us whatever it serves: own hardware, which knows no tiers."""
        whole: _Subject = ("cost", backend_id, None, ServiceTier.STANDARD)
        return self._bands(whole, whole, at_us, currency)

    def next_change_us(self, after_us: int) -> int | None:
        """The first instant after `after_us` at which any price begins: until then a card that was
        read at `after_us` stays right. None: nothing is due.
        """
        index = bisect_right(self._starts, after_us)
        return self._starts[index] if index < len(self._starts) else None

    def _bands(
        self, first: "_Subject", second: "_Subject", at_us: int, currency: str | None
    ) -> tuple[Band, ...]:
        timeline = self._timelines.get((first, currency))
        if timeline is None:
            # Only subjects that exist are kept, or any name a client makes up would stay here.
            if first not in self._versions and second not in self._versions:
                return ()
            layers = [self._versions.get(each, []) for each in dict.fromkeys((second, first))]
            book, owner, _, _ = first
            off = self._discounts.get(owner or "", []) if book == "charge" else []
            timeline = self._timelines[first, currency] = _timeline(layers, currency, off)
        index = bisect_right(timeline.starts, at_us)
        return timeline.bands[index - 1] if index else ()


def card_for(bands: Sequence[Band], prompt_tokens: int) -> RateCard:
    """The card of a request with so many tokens of prompt. `bands` has at least one."""
    return bands[_reached(bands, prompt_tokens) - 1].card


def reachable(bands: Sequence[Band], prompt_bound: int) -> list[RateCard]:
    """Every card that a prompt of at most so many tokens may land on."""
    return [band.card for band in bands[: _reached(bands, prompt_bound)]]


def _reached(bands: Sequence[Band], tokens: int) -> int:
    return max(1, bisect_left(bands, tokens, key=lambda band: band.above_tokens))


def _first(bands: Sequence[Band]) -> RateCard | None:
    return bands[0].card if bands else None


def rate_of(card: RateCard, meter: Meter) -> Rate | None:
    """The price of a meter. A cache meter without one of its own is priced as `input`, so that what
    nobody priced is never free. None: the card has no price for `output`.
    """
    fall_back = None
    for rate in card.rates:
        if rate.meter is meter:
            return rate
        if rate.meter is Meter.INPUT:
            fall_back = rate
    if fall_back is None or meter is Meter.OUTPUT:
        return None
    return replace(fall_back, meter=meter)


def can_price(card: RateCard, with_output: bool) -> bool:
    """Whether every meter a request may touch has a price; embeddings need none for output."""
    return rate_of(card, Meter.OUTPUT if with_output else Meter.INPUT) is not None


def worst_input_picos(card: RateCard) -> int:
    """Picos per token of the dearest meter a token of the prompt can land on."""
    return max(rate.picos_per_token for rate in card.rates if rate.meter is not Meter.OUTPUT)


def output_picos(card: RateCard) -> int:
    """Picos per output token; 0 where the card has no output price (see `can_price`)."""
    rate = rate_of(card, Meter.OUTPUT)
    return 0 if rate is None else rate.picos_per_token


def sealed_card(currency: str, rates: Iterable[Rate]) -> RateCard:
    """A card under the hash of its content: equal prices of equal versions are the same card."""
    ordered = tuple(sorted(rates, key=lambda rate: METERS.index(rate.meter)))
    content = msgspec.msgpack.encode((currency, [_named(each) for each in ordered]))
    return RateCard(f"rc_{hashlib.blake2b(content, digest_size=16).hexdigest()}", currency, ordered)


def _named(rate: Rate) -> tuple[object, ...]:
    """Without what it does not have: a card keeps its name when rates learn to say more."""
    said = msgspec.structs.astuple(rate)
    while said[-1] is None:
        said = said[:-1]
    return said


# Book, tenant or backend, model, service tier.
_Subject = tuple[str, str | None, str | None, ServiceTier]


class _Timeline(msgspec.Struct, frozen=True):
    """The cards of one subject; `bands[i]` are in force from `starts[i]` to the next start."""

    starts: tuple[int, ...]
    bands: tuple[tuple[Band, ...], ...]


def _subject_of(version: PriceVersion) -> _Subject:
    if version.book == "charge":
        return ("charge", version.tenant_id, version.model, version.service_tier)
    return ("cost", version.backend_id, version.upstream_model, version.service_tier)


def _timeline(
    layers: Sequence[Sequence[PriceVersion]], currency: str | None, off: Sequence[Discount]
) -> _Timeline:
    """Later layers win over earlier ones, meter by meter."""
    versions = [
        version
        for layer in layers
        for version in layer
        if currency is None or version.currency == currency
    ]
    begins = {each.effective_from_us for each in versions}
    starts = tuple(sorted(begins | {each.effective_from_us for each in off}))
    return _Timeline(starts, tuple(_bands_at(versions, at_us, off) for at_us in starts))


def _bands_at(
    versions: Sequence[PriceVersion], at_us: int, off: Sequence[Discount]
) -> tuple[Band, ...]:
    found: dict[Meter, PriceVersion] = {}
    listed: dict[Meter, PriceVersion] = {}
    for version in versions:
        if version.effective_from_us <= at_us:
            found[version.meter] = version
            if version.tenant_id is None:
                listed[version.meter] = version
    if Meter.INPUT not in found:
        return ()
    currency = found[Meter.INPUT].currency
    priced = [version for version in found.values() if version.currency == currency]
    listed = {meter: of for meter, of in listed.items() if of.currency == currency}
    named = (*priced, *listed.values())
    edges = {0} | {tier.above_tokens for version in named for tier in version.context_tiers}

    def rate(version: PriceVersion, above: int) -> Rate:
        if version.tenant_id is None:
            return _discounted(version, above, at_us, off)
        return _contracted(version, listed, above)

    return tuple(
        Band(above, sealed_card(currency, [rate(version, above) for version in priced]))
        for above in sorted(edges)
    )


def _contracted(version: PriceVersion, listed: Mapping[Meter, PriceVersion], above: int) -> Rate:
    """Beside a contract's price what the list asks for: of the meter, or where the list does not
    price it what `rate_of` would.
    """
    rate = version.at(above)
    other = listed.get(version.meter)
    if other is None and version.meter is not Meter.OUTPUT:
        other = listed.get(Meter.INPUT)
    if other is None:
        return rate
    asked = other.at(above).picos_per_token
    return rate if asked == rate.picos_per_token else replace(rate, list_picos=asked)


def _discounted(version: PriceVersion, above: int, at_us: int, off: Sequence[Discount]) -> Rate:
    """With what is taken off the list; the version says so: `price_01-12.5%`."""
    rate, model = version.at(above), version.model
    discount = None
    if off and model is not None:
        discount = in_force(off, model, version.meter, at_us)
    if discount is None:
        return rate
    name, asked = discounted(rate.version, discount), rate.picos_per_token
    if rate.schedule is None:
        left = discount.off(asked)
        return Rate(rate.meter, left, name, list_picos=asked if asked != left else None)
    schedule = rate.schedule.repriced(discount.off)
    listed = rate.schedule if schedule != rate.schedule else None
    return Rate(rate.meter, schedule.dearest_picos, name, schedule, list_schedule=listed)
