"""What a month's quantity makes of prices that depend on it: which tokens count together, and the
step that each line of theirs comes to.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import msgspec
from msgspec.structs import replace

from billing.discounts import undiscounted
from billing.meters import METERS, Meters
from billing.prices import RateCard
from billing.quantity import Schedule, billed, step_version
from billing.rating import lines


class Identity(msgspec.Struct, frozen=True):
    """What makes two amounts the same line."""

    cost_center: str
    team: str
    key: str
    model: str
    backend_region: str
    meter: str
    price_version: str
    picos_per_token: int
    provenance: str
    period_start_us: int
    period_end_us: int
    corrects_invoice: str | None
    list_picos_per_token: int | None = None


class Counted(msgspec.Struct, frozen=True):
    """The tokens that are counted together: of one price version and month, with a discount or
    without, as far as their steps begin at the same totals.
    """

    version: str
    mode: str
    above_tokens: tuple[int, ...]
    period_start_us: int
    period_end_us: int


class Asked(msgspec.Struct):
    """What a price version asks for at each step, and what the list does, where it is another."""

    schedule: Schedule
    listed: Schedule | None = None


Tokens = dict[Identity, int]
# Of a price version without its discount and a month, how many tokens stand in each step.
Standing = Mapping[tuple[str, int, int], Mapping[int, int]]
Used = Iterable[tuple[RateCard, Meters]]
Version = tuple[str, int, int, int]  # as booked, its dearest step, and the span of the month


def order(identity: Identity) -> tuple[str | int, ...]:
    """What is late after all else; a payer's lines together, meters in their own order."""
    return (
        identity.corrects_invoice is not None,
        identity.period_start_us,
        identity.corrects_invoice or "",
        identity.cost_center,
        identity.team,
        identity.key,
        identity.model,
        identity.backend_region,
        [meter.value for meter in METERS].index(identity.meter),
        identity.price_version,
        identity.picos_per_token,
        -1 if identity.list_picos_per_token is None else identity.list_picos_per_token,
        identity.provenance,
    )


def version_key(identity: Identity) -> Version:
    span = identity.period_start_us, identity.period_end_us
    return identity.price_version, identity.picos_per_token, *span


def counted(identity: Identity, schedule: Schedule) -> Counted:
    span = identity.period_start_us, identity.period_end_us
    return Counted(*_together(identity.price_version, schedule), *span)


def tiered(
    new: Tokens,
    before: Tokens,
    asked: Mapping[Version, Asked],
    stood: Mapping[int, int] | None = None,
) -> Iterator[tuple[Identity, int]]:
    """In the prices that the month's total makes of it: which step is the total's to say, what it
    costs is each version's own. `stood`: as `quantity.billed` has it.
    """
    coming, had = (
        dict(sorted(each.items(), key=lambda item: order(item[0]))) for each in (new, before)
    )
    steps_of = asked[version_key(next(iter(coming)))].schedule
    for identity, part in billed(steps_of, coming, had, stood):
        of, above = asked[version_key(identity)], part.step.above_tokens
        price = _price(of.schedule, above)
        listed = identity.list_picos_per_token
        if of.listed is not None:
            of_step = of.listed.picos_at(above)
            listed = of_step if of_step != price else None
        version = step_version(identity.price_version, part.step)
        step = replace(
            identity, price_version=version, picos_per_token=price, list_picos_per_token=listed
        )
        yield step, part.quantity


def over_booked(month: Used, before: Used = ()) -> int:
    """How many picos the usage of a month was booked at beyond what its total makes of it: of
    `before`, which is billed, and of the rest, billed after it.
    """
    over, steps_of = 0, dict[_Together, Schedule]()
    earlier, later = dict[_Together, _Asked](), dict[_Together, _Asked]()
    for used, into in ((before, earlier), (month, later)):
        for line in (line for card, meters in used for line in lines(meters, card)):
            if line.schedule is not None:
                together = _together(line.version, line.schedule)
                steps_of[together] = line.schedule
                tokens, asked = into.setdefault(together, {}), (line.version, line.schedule)
                tokens[asked] = tokens.get(asked, 0) + line.quantity
                over += line.amount_picos
    for together, steps in steps_of.items():
        old, new = (_ordered(each.get(together, {})) for each in (earlier, later))
        for (_, schedule), part in chain(billed(steps, old, {}), billed(steps, new, old)):
            over -= part.quantity * _price(schedule, part.step.above_tokens)
    return over


_Together = tuple[str, str, tuple[int, ...]]
_Asked = dict[tuple[str, Schedule], int]


def _together(version: str, schedule: Schedule) -> _Together:
    edges = tuple(step.above_tokens for step in schedule.steps)
    return undiscounted(version), schedule.mode, edges


def _ordered(tokens: _Asked) -> _Asked:
    return dict(sorted(tokens.items(), key=lambda item: item[0][0]))


def _price(schedule: Schedule, above_tokens: int) -> int:
    """Picos per token at a step."""
    return next(
        step.picos_per_token for step in schedule.steps if step.above_tokens == above_tokens
    )
