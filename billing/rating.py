"""What usage comes to: tokens x price, exact. Rating never rounds."""

import msgspec

from billing.meters import METERS, Meter, Meters
from billing.prices import RateCard, rate_of
from billing.quantity import Schedule


class RatedLine(msgspec.Struct, frozen=True):
    """One meter of a usage, priced. amount_picos = quantity x picos_per_token."""

    meter: Meter
    quantity: int
    picos_per_token: int
    version: str
    amount_picos: int
    schedule: Schedule | None = None  # by which the month's total decides the price
    list_picos: int | None = None  # per token in the list, where a contract asks for another price
    list_schedule: Schedule | None = None  # the same of a discounted price with steps


class UnpricedMeterError(ValueError):
    """Tokens on a meter that the card has no price for. Never rated as free."""


class Tariff(msgspec.Struct, frozen=True):
    """A card as five numbers, for whoever rates often: picos per token of each meter, with what
    `rate_of` falls back to already in place. `output` None: the card has no price for it.
    """

    input: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int | None
    card_id: str = ""

    def of(self, meters: Meters) -> int:
        """As `rate` with the card."""
        amount = meters.input * self.input
        if meters.cache_read:
            amount += meters.cache_read * self.cache_read
        if meters.cache_write_5m or meters.cache_write_1h:
            amount += meters.cache_write_5m * self.cache_write_5m
            amount += meters.cache_write_1h * self.cache_write_1h
        if meters.output:
            if self.output is None:
                raise UnpricedMeterError(
                    f"{meters.output} output tokens cannot be rated: card {self.card_id} has no"
                    " price for them"
                )
            amount += meters.output * self.output
        return amount


def tariff(card: RateCard) -> Tariff:
    """The card's numbers. UnpricedMeterError for a card without a price for `input`."""
    found = {rate.meter: rate.picos_per_token for rate in card.rates}
    given = found.get(Meter.INPUT)
    if given is None:
        raise UnpricedMeterError(f"card {card.id} has no price for input")
    return Tariff(
        given,
        found.get(Meter.CACHE_READ, given),
        found.get(Meter.CACHE_WRITE_5M, given),
        found.get(Meter.CACHE_WRITE_1H, given),
        found.get(Meter.OUTPUT),
        card.id,
    )


def rate(meters: Meters, card: RateCard) -> int:
    """Picos. Linear: the rate of a sum is the sum of the rates, so aggregates rate like requests.
    UnpricedMeterError when there are output tokens and the card has no price for them.
    """
    return tariff(card).of(meters)


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
    return RatedLine(
        meter,
        quantity,
        price.picos_per_token,
        price.version,
        amount,
        price.schedule,
        price.list_picos,
        price.list_schedule,
    )
