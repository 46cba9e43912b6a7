"""Service tiers: what providers call them, and which of our prices a request is charged at.

The one place where a name on the wire meets a tier of ours. A new spelling goes here.
"""

from collections.abc import Container
from enum import StrEnum
from typing import Final

AUTO: Final = "auto"  # asked: whichever the backend chooses; never a tier of its own


class ServiceTier(StrEnum):
    """How soon and how surely a backend answers, where that has a price of its own."""

    STANDARD = "standard"
    BATCH = "batch"
    FLEX = "flex"
    PRIORITY = "priority"

    __hash__ = str.__hash__  # as equality; the library's own is a call into Python


# Of OpenAI one asks for auto, default, flex or priority, and is told default, flex or priority. Of
# Anthropic one asks for auto or standard_only, and is told standard, batch or priority. `on_demand`
# is what others call the standard one. OpenAI's `scale` is bought by the day: a token of it has no
# price.
_ASKED: Final = {
    "auto": AUTO,
    "default": ServiceTier.STANDARD,
    "standard": ServiceTier.STANDARD,
    "standard_only": ServiceTier.STANDARD,
    "batch": ServiceTier.BATCH,
    "flex": ServiceTier.FLEX,
    "priority": ServiceTier.PRIORITY,
}
_SERVED: Final = {
    "default": ServiceTier.STANDARD,
    "standard": ServiceTier.STANDARD,
    "on_demand": ServiceTier.STANDARD,
    "batch": ServiceTier.BATCH,
    "flex": ServiceTier.FLEX,
    "priority": ServiceTier.PRIORITY,
}
ASKABLE: Final = tuple(_ASKED)


def asked_tier(name: str) -> str | None:
    """What a request asks for: a tier, or `auto`. None: no tier that can be priced, and nothing is
    served at a guess.
    """
    return _ASKED.get(name)


def served_tier(name: str | None) -> ServiceTier | None:
    """What a backend says that it served. None: nothing that we can tell a price by."""
    return None if name is None else _SERVED.get(name)


def billed_tier(asked: str, told: str | None, priced: Container[str]) -> ServiceTier:
    """The tier that a request is charged at: the one that was served, where the backend says so and
    it has a price; else the one that was asked for, which has one, or nothing would have been sent.
    `auto` that nobody explains is the standard tier.
    """
    served = served_tier(told)
    if served is not None and served in priced:
        return served
    return ServiceTier.STANDARD if asked == AUTO else ServiceTier(asked)


def versioned(price_id: str, tier: ServiceTier) -> str:
    """What a price of a tier is called: `price_01@priority`; one of the standard tier is its id."""
    return price_id if tier is ServiceTier.STANDARD else f"{price_id}@{tier.value}"


def tier_of(version: str) -> ServiceTier:
    """The tier of a price version, however it goes on: `price_01@priority>200000-12.5%`."""
    after = version.partition("@")[2]
    for tier in ServiceTier:
        if after.startswith(tier.value):
            return tier
    return ServiceTier.STANDARD
