"""What a provider billed against what we metered, by day and model: every gap with its causes.

The causes of a gap add up to it, to the last pico. Tokens are explained first, at our own price:
what a whole class of rows makes up (repeated lines, attempts that lost, estimates, figures that the
provider told us and we did not book) before what can only be laid on rows that nobody counted for
us. What is left of the money then is the provider's price.

A positive amount: they billed more than we metered.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

import msgspec

from billing.meters import METERS, Meter, Meters, Provenance
from billing.money import format_decimal
from billing.prices import RateCard, rate_of
from billing.provider_bills import OTHER, Bill, BillLine

BILLED_TWICE: Final = "billed_twice"  # lines of the file that repeat another in every column
ESTIMATED: Final = "estimated"  # rows of an answer whose tokens the provider did not tell us
LOSING: Final = "losing_attempts"  # retries and hedges beside the attempt that won
NOT_BILLED: Final = "not_billed"  # metered, and no line of the bill has the model on that day
NOT_METERED: Final = "not_metered"  # billed, and no row of ours has the model on that day
OTHER_CHARGE: Final = "other_charge"  # billed, and no token of it
OTHER_CURRENCY: Final = "other_currency"  # metered for tenants whose cost is booked in another one
PRICE: Final = "price"  # as many tokens, at another price
ROUNDING: Final = "rounding"  # less than the bill's own decimals can say
COUNTED_OTHERWISE: Final = "token_count"  # their count is another, of rows that were counted
UNPRICED: Final = "unpriced"  # we know no cost price of what they billed
CAUSES: Final = (
    BILLED_TWICE, ESTIMATED, LOSING, NOT_BILLED, NOT_METERED, OTHER_CHARGE, OTHER_CURRENCY, PRICE,
    ROUNDING, COUNTED_OTHERWISE, UNPRICED,
)  # fmt: skip
_PICO_DECIMALS: Final = 12
_PRICE_DECIMALS: Final = 6


class Metered(msgspec.Struct, frozen=True, kw_only=True):
    """Usage rows of one day and model that are alike in provenance, outcome and price, added up.
    `told` is what the provider's answers said of them, where it said anything. `elsewhere`: their
    cost is booked in another currency than the bill's; they have neither card nor cost here.
    """

    day: str
    model: str  # as the provider names it
    provenance: Provenance
    winner: bool
    card: RateCard | None  # our cost price
    rows: int
    usage: Meters
    told: Meters
    cost_picos: int
    elsewhere: bool = False


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One reason of a gap, on one meter. `rows`: how many usage rows it speaks of."""

    cause: str
    meter: str
    tokens: int
    amount_picos: int
    rows: int = 0
    billed_per_million: str | None = None  # of a price, to six decimals
    metered_per_million: str | None = None


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One day and model. `gap_picos` = billed - metered = the sum of the causes' amounts."""

    day: str
    model: str
    billed_tokens: int
    metered_tokens: int
    billed_picos: int
    metered_picos: int
    estimated_tokens: int  # inside metered_tokens
    losing_tokens: int  # inside metered_tokens
    causes: tuple[Cause, ...]

    @property
    def gap_picos(self) -> int:
        return self.billed_picos - self.metered_picos


class _Part(msgspec.Struct, frozen=True):
    """Tokens of every meter that one cause may explain, with their money."""

    cause: str
    tokens: tuple[int, ...]  # by METERS
    picos: tuple[int, ...]
    rows: int = 0


def compare(bill: Bill, metered: Iterable[Metered]) -> tuple[Compared, ...]:
    """By day and model, in their order; those that agree are there too, without causes."""
    billed: dict[tuple[str, str], list[BillLine]] = defaultdict(list)
    rows: dict[tuple[str, str], list[Metered]] = defaultdict(list)
    for line in bill.lines:
        billed[line.day, line.model].append(line)
    for row in metered:
        rows[row.day, row.model].append(row)
    step = 10 ** (_PICO_DECIMALS - bill.decimals)
    return tuple(
        _compared(key, billed.get(key, []), rows.get(key, []), step)
        for key in sorted(billed.keys() | rows.keys())
    )


def by_cause(compared: Iterable[Compared]) -> dict[str, int]:
    """Picos of each cause over all days and models: together the whole gap."""
    sums: dict[str, int] = defaultdict(int)
    for each in compared:
        for cause in each.causes:
            sums[cause.cause] += cause.amount_picos
    return dict(sorted(sums.items()))


def _compared(
    key: tuple[str, str], lines: Sequence[BillLine], rows: Sequence[Metered], step: int
) -> Compared:
    tokens = [line for line in lines if line.meter != OTHER]
    losing = [row for row in rows if not row.winner]
    causes = [
        _cause(OTHER_CHARGE, line.meter, line.quantity, line.amount_picos)
        for line in lines
        if line.meter == OTHER
    ]
    ours = [row for row in rows if not row.elsewhere]
    if ours and tokens:
        causes += _explained(tokens, ours, [row for row in rows if row.elsewhere], step)
    elif rows and tokens:
        causes += _all_elsewhere(tokens, rows)
    elif rows:
        causes += _not_billed(rows)
    else:
        causes += [_cause(NOT_METERED, x.meter, x.quantity, x.amount_picos) for x in tokens]
    return Compared(
        day=key[0],
        model=key[1],
        billed_tokens=sum(line.quantity for line in tokens),
        metered_tokens=sum(row.usage.total for row in rows),
        billed_picos=sum(line.amount_picos for line in lines),
        metered_picos=sum(row.cost_picos for row in rows),
        estimated_tokens=sum(row.usage.total for row in _estimated(rows)),
        losing_tokens=sum(row.usage.total for row in losing),
        causes=tuple(cause for cause in causes if cause.tokens or cause.amount_picos),
    )


def _cause(cause: str, meter: str, tokens: int, picos: int, rows: int = 0) -> Cause:
    return Cause(cause=cause, meter=meter, tokens=tokens, amount_picos=picos, rows=rows)


def _estimated(rows: Iterable[Metered]) -> list[Metered]:
    """Winners whose tokens stand on nobody's word."""
    return [row for row in rows if row.winner and row.provenance is Provenance.ESTIMATED]


def _not_billed(rows: Sequence[Metered]) -> Iterator[Cause]:
    part = _minus(NOT_BILLED, rows)
    for index, meter in enumerate(METERS):
        yield _cause(NOT_BILLED, meter.value, part.tokens[index], part.picos[index], part.rows)


def _all_elsewhere(lines: Sequence[BillLine], rows: Sequence[Metered]) -> Iterator[Cause]:
    """A day and model that nobody has who pays in the bill's currency: no price of ours is known,
    so each token is worth what it was billed at.
    """
    billed = {Meter(line.meter): line for line in lines}
    for meter in METERS:
        line = billed.get(meter, BillLine("", "", meter, 0, 0, 0))
        there = sum(row.usage.of(meter) for row in rows)
        picos = line.amount_picos
        if line.quantity != there:
            picos = there * (picos // line.quantity) if line.quantity else 0
        yield _cause(OTHER_CURRENCY, meter, there, picos, sum(row.rows for row in rows))
        yield _cause(COUNTED_OTHERWISE, meter, line.quantity - there, line.amount_picos - picos)


def _explained(
    lines: Sequence[BillLine], rows: Sequence[Metered], elsewhere: Sequence[Metered], step: int
) -> Iterator[Cause]:
    """Causes of a day and model that both sides have. Tokens whose cost is booked in another
    currency are worth what the same tokens cost in the bill's.
    """
    billed = {Meter(line.meter): line for line in lines}
    there = _Part(
        OTHER_CURRENCY,
        tuple(sum(row.usage.of(meter) for row in elsewhere) for meter in METERS),
        tuple(
            sum(row.usage.of(meter) for row in elsewhere) * _price(rows, meter) for meter in METERS
        ),
        sum(row.rows for row in elsewhere),
    )
    metered = [
        there.tokens[index] + sum(row.usage.of(meter) for row in rows)
        for index, meter in enumerate(METERS)
    ]
    shift = [
        (billed[meter].quantity if meter in billed else 0) - metered[index]
        for index, meter in enumerate(METERS)
    ]
    parts = (_whole(shift, billed, rows) or _pieces(shift, rows)) if any(shift) else []
    parts = [*parts, there]
    for part in parts:
        for index, meter in enumerate(METERS):
            yield _cause(part.cause, meter, part.tokens[index], part.picos[index], part.rows)
    for index, meter in enumerate(METERS):
        line = billed.get(meter, BillLine("", "", meter, 0, 0, 0))
        left = line.amount_picos - _cost(rows, meter) - sum(part.picos[index] for part in parts)
        if left:
            yield _of_money(line, rows, meter, left, step)


def _of_money(line: BillLine, rows: Sequence[Metered], meter: Meter, left: int, step: int) -> Cause:
    """What is left of the money when all tokens are explained."""
    if 2 * abs(left) <= line.lines * step:
        return _cause(ROUNDING, meter, 0, left)
    priced = [row for row in rows if row.card is not None]
    if not priced:
        return _cause(UNPRICED, meter, line.quantity, left, sum(row.rows for row in rows))
    return Cause(
        cause=PRICE,
        meter=meter,
        tokens=line.quantity,
        amount_picos=left,
        rows=sum(row.rows for row in rows if row.usage.of(meter)),
        billed_per_million=_unit(line.amount_picos, line.quantity),
        metered_per_million=format_decimal(_price(rows, meter), _PRICE_DECIMALS),
    )


def _unit(picos: int, tokens: int) -> str | None:
    """Picos a token are millionths a million: to six decimals, half up."""
    if not tokens:
        return None
    sign = -1 if (picos < 0) != (tokens < 0) else 1
    nearest = (2 * abs(picos) + abs(tokens)) // (2 * abs(tokens))
    return format_decimal(sign * nearest, _PRICE_DECIMALS)


def _whole(
    shift: Sequence[int], billed: Mapping[Meter, BillLine], rows: Sequence[Metered]
) -> list[_Part]:
    """As few whole classes as together are the very difference in tokens; none where none are."""
    possible = [
        _repeated(billed),
        _minus(LOSING, [row for row in rows if not row.winner]),
        _minus(ESTIMATED, _estimated(rows)),
        _told(rows),
    ]
    classes = [part for part in possible if any(part.tokens)]
    for size in range(1, len(classes) + 1):
        for parts in combinations(classes, size):
            if [sum(each) for each in zip(*(x.tokens for x in parts), strict=True)] == [*shift]:
                return list(parts)
    return []


def _repeated(billed: Mapping[Meter, BillLine]) -> _Part:
    lines = [billed.get(meter) for meter in METERS]
    tokens = tuple(line.repeated_quantity if line else 0 for line in lines)
    return _Part(BILLED_TWICE, tokens, tuple(line.repeated_picos if line else 0 for line in lines))


def _minus(cause: str, rows: Sequence[Metered]) -> _Part:
    """As if the rows were not there."""
    tokens = tuple(-sum(row.usage.of(meter) for row in rows) for meter in METERS)
    picos = tuple(-_cost(rows, meter) for meter in METERS)
    return _Part(cause, tokens, picos, sum(row.rows for row in rows))


def _told(rows: Sequence[Metered]) -> _Part:
    """As if what the provider's answers said had been booked."""
    moved = [row for row in rows if row.told != row.usage]
    more = [[row.told.of(m) - row.usage.of(m) for m in METERS] for row in moved]
    tokens = tuple(sum(each[i] for each in more) for i in range(len(METERS)))
    picos = tuple(
        sum(each[i] * _price([row], meter) for row, each in zip(moved, more, strict=True))
        for i, meter in enumerate(METERS)
    )
    return _Part(COUNTED_OTHERWISE, tokens, picos, sum(row.rows for row in moved))


def _pieces(shift: Sequence[int], rows: Sequence[Metered]) -> list[_Part]:
    """Meter by meter: on estimates as far as these reach, then on attempts that lost, and only
    then is it a matter of counting. Below nothing no row can be.
    """
    losing = [row for row in rows if not row.winner and row.provenance is not Provenance.REPORTED]
    pools = ((ESTIMATED, _estimated(rows)), (LOSING, losing), (COUNTED_OTHERWISE, rows))
    found: dict[str, dict[int, int]] = {cause: {} for cause, _ in pools}
    for index, meter in enumerate(METERS):
        left = shift[index]
        for cause, pool in pools:
            there = sum(row.usage.of(meter) for row in pool)
            take = (
                left
                if pool and cause == COUNTED_OTHERWISE
                else max(left, -there)
                if there > 0
                else 0
            )
            found[cause][index], left = take, left - take
    return [
        _Part(
            cause,
            tuple(found[cause].values()),
            tuple(found[cause][i] * _price(pool or rows, m) for i, m in enumerate(METERS)),
            sum(row.rows for row in pool),
        )
        for cause, pool in pools
    ]


def _cost(rows: Iterable[Metered], meter: Meter) -> int:
    return sum(row.usage.of(meter) * _price([row], meter) for row in rows)


def _price(rows: Sequence[Metered], meter: Meter) -> int:
    """Picos a token: of the card that most of the tokens are priced by."""
    most = max(rows, key=lambda row: (row.usage.of(meter), row.usage.total, row.card is not None))
    rate = None if most.card is None else rate_of(most.card, meter)
    return 0 if rate is None else rate.picos_per_token
