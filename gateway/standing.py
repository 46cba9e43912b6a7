"""Where the gateway itself stands, against the residency that policies require."""

from collections.abc import Collection
from typing import Final

from policies import residency

VARIABLE: Final = "METERHOUSE_JURISDICTION"


def warning(required: Collection[str] | None, stands_in: frozenset[str]) -> str | None:
    """Why every request under this requirement would be refused because of the gateway's own
    place; None when there is no requirement or the place meets it.
    """
    if not required:
        return None
    permitted = residency.expand(required)
    words = residency.summary(permitted)
    if not stands_in:
        return (
            f"residency in {words} is required and {VARIABLE} is not set: every request that this "
            "applies to is refused"
        )
    if stands_in <= permitted:
        return None
    places = ", ".join(sorted(stands_in))
    return (
        f"residency in {words} is required and the gateway stands in {places} ({VARIABLE}): every "
        "request that this applies to is refused"
    )
