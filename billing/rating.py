"""What usage comes to: tokens x price, exact. Rating never rounds."""

import msgspec

from billing.meters import METERS, Meter, Meters
from billing.prices import RateCard, rate_of


class RatedLine(msgspec.Struct, frozen=True):
    """One meter of a usage, priced. amount_picos = quantity x picos_per_token."""

    meter: Meter
    quantity: int
    picos_per_token: int
    version: str
    amount_picos: int


class UnpricedMeterError(ValueError):
    """Tokens on a meter that the card has no price for. Never rated as free."""


def rate(meters: Meters, card: RateCard) -> int:
    """Picos. Linear: the rate of a sum is the sum of the rates, so aggregates rate like requests.
    UnpricedMeterError when there are output tokens and the card has no price for them.
    """
    return sum(line.amount_picos for line in lines(meters, card))


def lines(meters: Meters, card: RateCard) -> tuple[RatedLine, ...]:
    """One line a meter that has tokens, in the order of the meters; together they are `rate`."""
    return tuple(_line(meter, quantity, card) for meter in METERS if (quantity := meters.of(meter)))


def _line(meter: Meter, quantity: int, card: RateCard) -> RatedLine:
    price = rate_of(card, meter)
    if price is None:
        raise UnpricedMeterError(
            f"{quantity} {meter.value} tokens cannot be rated: card {card.id} has no price for them"
        )
    amount = quantity * price.picos_per_token
    return RatedLine(meter, quantity, price.picos_per_token, price.version, amount)
