"""Prices that fall with the quantity of a month: graduated or by volume.

While a month runs its total is not known, and the order in which usage comes must not matter. So
usage is booked and held at the dearest step, and the invoice says what the month's total makes of
it. Every payer has the same share of each step: nobody is cheaper for having come last.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

Payer = TypeVar("Payer")
Mode = Literal["graduated", "volume"]


class Step(msgspec.Struct, frozen=True, array_like=True):
    """The price of tokens beyond `above_tokens` of a month."""

    above_tokens: int
    picos_per_token: int


class Schedule(msgspec.Struct, frozen=True, array_like=True):
    """`graduated`: each token has the price of the step it falls in; `volume`: all tokens of the
    month have the price of the step that their total reaches. The first step is above 0.
    """

    mode: Mode
    steps: tuple[Step, ...]

    @property
    def dearest_picos(self) -> int:
        """What a token is booked at, before the month's total is known; never too little."""
        return max(step.picos_per_token for step in self.steps)

    def repriced(self, price: Callable[[int], int]) -> "Schedule":
        """The same steps at other prices."""
        steps = (Step(step.above_tokens, price(step.picos_per_token)) for step in self.steps)
        return Schedule(self.mode, tuple(steps))

    def picos_at(self, above_tokens: int) -> int | None:
        """Per token, of the step that begins there; None where none does."""
        found = (step.picos_per_token for step in self.steps if step.above_tokens == above_tokens)
        return next(found, None)


class Part(msgspec.Struct, frozen=True):
    """So many tokens in one step of a schedule; negative where they are taken back."""

    step: Step
    quantity: int

    @property
    def amount_picos(self) -> int:
        return self.quantity * self.step.picos_per_token


def step_version(version: str, step: Step) -> str:
    """What a price version is called on the line of one of its steps: `price_01+10000000`."""
    return f"{version}+{step.above_tokens}" if step.above_tokens else version


def whole_version(version: str) -> str:
    """The price version of a line, whichever step of it."""
    return version.partition("+")[0]


def step_of(version: str) -> int:
    """Where the step begins that the price version of a line says."""
    return int(version.partition("+")[2] or 0)


def between(schedule: Schedule, start: int, end: int) -> tuple[Part, ...]:
    """What a month costs more at `end` tokens than it did at `start`, step by step; picos are
    exact. Fewer tokens than before give negative parts.
    """
    if end < start:
        taken = between(schedule, end, start)
        return tuple(Part(part.step, -part.quantity) for part in taken)
    if schedule.mode == "volume":
        was, now = _reached(schedule, start), _reached(schedule, end)
        parts = [Part(was, -start), Part(now, end)] if was != now else [Part(now, end - start)]
    else:
        parts = list(_filled(schedule, start, end))
    return tuple(part for part in parts if part.quantity)


def billed(
    schedule: Schedule,
    new: Mapping[Payer, int],
    before: Mapping[Payer, int],
    stood: Mapping[int, int] | None = None,
) -> Iterator[tuple[Payer, Part]]:
    """What each payer's new tokens of a month are billed, after `before` was. All parts together
    are `between` the two totals. By volume, what was billed at another step is taken back and
    billed at the one that is reached now. Payers in a fixed order give fixed parts.

    `stood`: how many tokens what was billed has in each step, by where that begins. It is another
    share than that of so many tokens where an earlier invoice of the month was voided: with the new
    parts the month comes to what its total makes of it all the same.
    """
    start = sum(before.values())
    if stood is not None and sum(stood.values()) == start:
        wrong = _less(schedule, start, stood)
        if any(part.quantity for part in wrong):
            yield from _made_good(schedule, new, before, stood, wrong)
            return
    if schedule.mode == "volume":
        yield from _by_volume(schedule, new, before, start)
        return
    more = {payer: tokens for payer, tokens in new.items() if tokens > 0}
    less = {payer: -tokens for payer, tokens in new.items() if tokens < 0}
    peak = start + sum(more.values())
    yield from _spread(more, between(schedule, start, peak))
    for payer, part in _spread(less, between(schedule, peak - sum(less.values()), peak)):
        yield payer, Part(part.step, -part.quantity)


def _made_good(
    schedule: Schedule,
    new: Mapping[Payer, int],
    before: Mapping[Payer, int],
    stood: Mapping[int, int],
    wrong: Sequence[Part],
) -> Iterator[tuple[Payer, Part]]:
    """Shared by all where each step only gets more; else the first payer has what was wrong."""
    missing = _less(schedule, sum(before.values()) + sum(new.values()), stood)
    if all(tokens > 0 for tokens in new.values()) and all(each.quantity >= 0 for each in missing):
        yield from _spread(new, [part for part in missing if part.quantity])
        return
    yield from billed(schedule, new, before)
    for part in wrong:
        yield next(iter(new)), part


def _less(schedule: Schedule, tokens: int, stood: Mapping[int, int]) -> list[Part]:
    """What so many tokens have in each step beyond what stands there."""
    there: dict[int, int] = {}
    for part in between(schedule, 0, tokens):
        there[part.step.above_tokens] = there.get(part.step.above_tokens, 0) + part.quantity
    return [
        Part(step, there.get(step.above_tokens, 0) - stood.get(step.above_tokens, 0))
        for step in schedule.steps
    ]


def _by_volume(
    schedule: Schedule, new: Mapping[Payer, int], before: Mapping[Payer, int], start: int
) -> Iterator[tuple[Payer, Part]]:
    was, now = _reached(schedule, start), _reached(schedule, start + sum(new.values()))
    if was != now:
        for payer, tokens in before.items():
            yield payer, Part(was, -tokens)
            yield payer, Part(now, tokens)
    for payer, tokens in new.items():
        yield payer, Part(now, tokens)


def _spread(payers: Mapping[Payer, int], parts: Sequence[Part]) -> Iterator[tuple[Payer, Part]]:
    """Each part in proportion to what of the payers' tokens is left, by largest remainder."""
    left = dict(payers)
    for part in parts:
        whole = sum(left.values())
        shares = [divmod(tokens * part.quantity, whole) for tokens in left.values()]
        missing = part.quantity - sum(share for share, _ in shares)
        by_remainder = sorted(range(len(shares)), key=lambda place: (-shares[place][1], place))
        raised = set(by_remainder[:missing])
        for place, payer in enumerate(payers):
            share = shares[place][0] + (place in raised)
            left[payer] -= share
            yield payer, Part(part.step, share)


def _filled(schedule: Schedule, start: int, end: int) -> Iterator[Part]:
    ends = [step.above_tokens for step in schedule.steps[1:]]
    for step, until in zip(schedule.steps, [*ends, end], strict=True):
        low = max(start, step.above_tokens) if step.above_tokens else start
        yield Part(step, max(0, min(end, until) - low))


def _reached(schedule: Schedule, tokens: int) -> Step:
    """Of a total; a month below its first edge, or below nothing, is in the first step."""
    reached = [step for step in schedule.steps if step.above_tokens < tokens]
    return reached[-1] if reached else schedule.steps[0]
