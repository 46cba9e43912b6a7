"""What makes one think that the unit of a price was mistaken."""

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection

from billing.plausibility import is_implausible, is_leap
from billing.prices import picos_per_token
from billing.service_tiers import ServiceTier
from gateway import clock
from gateway.stores.sql import prices, rows


def odd(connection: Connection, price: rows.Price) -> str | None:
    """What makes one think that a unit was mistaken; None when nothing does."""
    return _implausible(price) or _leap(connection, price)


def _implausible(price: rows.Price) -> str | None:
    tiers = [tier for tiers_of in _KINDS.values() for tier in tiers_of(price)]
    for amount in (price.amount_per_million, *(tier.amount_per_million for tier in tiers)):
        if is_implausible(picos_per_token(amount), price.currency):
            return (
                f"{amount} {price.currency} a million tokens of {_meter(price)} is far from what "
                "any model costs: a price of one token, or of a thousand?"
            )
    return None


def _leap(connection: Connection, price: rows.Price) -> str | None:
    """Beside the one that it would follow; a contract's first beside the list, and the first of a
    service tier beside the standard one, as those are when both are in force. A tier of sizes is
    beside what its tokens cost now.
    """
    follows, told = prices.before(connection, price), "the {} before it"
    both_us = max(price.effective_from_us, clock.now_us())
    if follows is None and price.tenant_id is not None:
        follows, told = prices.listed(connection, price, both_us), "the list's {}"
    if follows is None and price.service_tier != ServiceTier.STANDARD:
        follows, told = prices.standard(connection, price, both_us), "the standard tier's {}"
    return None if follows is None else _leap_from(follows, price, told)


def _leap_from(follows: rows.Price, price: rows.Price, told: str) -> str | None:
    for kind, tiers_of in _KINDS.items():
        edges = {0, *(tier.above_tokens for each in (follows, price) for tier in tiers_of(each))}
        for above in sorted(edges):
            was, is_to_be = (_amount_at(each, tiers_of(each), above) for each in (follows, price))
            if is_leap(picos_per_token(was), picos_per_token(is_to_be)):
                where = f" above {above} tokens of {kind}" if above else ""
                return (
                    f"{is_to_be} for {_meter(price)}{where} is more than three times, or less than "
                    f"a third of, {told.format(was)}"
                )
    return None


def _amount_at(price: rows.Price, tiers: Sequence[rows.TierPrice], above_tokens: int) -> str:
    reached = [tier for tier in tiers if tier.above_tokens <= above_tokens]
    return reached[-1].amount_per_million if reached else price.amount_per_million


_KINDS: Final[dict[str, Callable[[rows.Price], Sequence[rows.TierPrice]]]] = {
    "prompt": lambda price: price.context_tiers,
    "a month": lambda price: price.quantity_tiers.tiers if price.quantity_tiers else (),
}


def _meter(price: rows.Price) -> str:
    standard = price.service_tier == ServiceTier.STANDARD
    return price.meter if standard else f"{price.meter} ({price.service_tier})"
