"""What a tenant pays less than the list: a share, by model and meter, from an instant on."""

from collections.abc import Iterable
from typing import Final

import msgspec

from billing.meters import Meter
from billing.money import format_decimal, parse_decimal

_DECIMALS: Final = 4  # of a percent
_WHOLE: Final = 100 * 10**_DECIMALS
_ODD: Final = 50 * 10**_DECIMALS


class Discount(msgspec.Struct, frozen=True):
    """Immutable. In force until the next one of its tenant, model and meter begins; one of 0
    percent ends it.
    """

    id: str
    tenant_id: str
    percent_e4: int  # ten thousandths of a percent
    effective_from_us: int
    model: str | None = None  # None: every model
    meter: Meter | None = None  # None: every meter

    @property
    def percent(self) -> str:
        return format_decimal(self.percent_e4, _DECIMALS)

    def off(self, picos_per_token: int) -> int:
        """What is left of a price, in whole picos per token: rounded up, so that a discount never
        gives more than it says, and at most a pico a token less.
        """
        return -(-picos_per_token * (_WHOLE - self.percent_e4) // _WHOLE)


def parse_percent(text: str) -> int:
    """Ten thousandths of a percent. ValueError for more than 4 decimals, or outside 0 to 100."""
    found = parse_decimal(text, _DECIMALS)
    if not 0 <= found <= _WHOLE:
        raise ValueError(f"{text!r} percent is not between 0 and 100")
    return found


def discounted(version: str, discount: Discount) -> str:
    """What a price version is called with that taken off: `price_01-12.5%`."""
    return f"{version}-{discount.percent}%"


def undiscounted(version: str) -> str:
    """The price version that a discount was taken off; itself, where none was."""
    whole, hyphen, _ = version.rpartition("-")
    return whole if hyphen and is_discounted(version) else version


def is_discounted(version: str) -> bool:
    """Of a version without the step of its line."""
    return version.endswith("%")


def is_odd(percent_e4: int) -> bool:
    """Whether so much is given away, over half, that one person does not decide it alone."""
    return percent_e4 > _ODD


def in_force(
    discounts: Iterable[Discount], model: str, meter: Meter, at_us: int
) -> Discount | None:
    """The one discount on a price: they do not add up. What is said of model and meter goes before
    what is said of the model, that before what is said of the meter, and that before what is said
    of everything. None: nothing is taken off.
    """
    found = max(
        (
            each
            for each in discounts
            if each.effective_from_us <= at_us
            and each.model in (model, None)
            and each.meter in (meter, None)
        ),
        key=lambda each: (
            each.model is not None, each.meter is not None, each.effective_from_us, each.id
        ),
        default=None,
    )  # fmt: skip
    return found if found is not None and found.percent_e4 else None
