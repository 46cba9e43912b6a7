"""How much of a sliced hold a stream has used, and its next slice, asked for ahead of need.

What was used is never taken for less than what has come: each event counts as at least one token,
as many as our tokeniser finds in it, and no fewer than the backend itself has reported so far. The
next slice is asked for when half of one is left, and after a refusal each time that half of the
rest is gone, so that other requests' unused money may still save the stream. At the end of what is
held the store is asked a last time, and leases that are in the way are asked back; nothing is
relayed meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from gateway.dataplane.envelope import CHAT, COMPLETIONS
from gateway.dataplane.flow import Flow
from gateway.stores.redis.holds import Slice

Take = Callable[[int], "asyncio.Future[Slice | None]"]  # raises the grant to so many a choice
# Asks back what is leased of these accounts; whether to try once more without.
Recall = Callable[[tuple[str, ...], int], Awaitable[bool]]

# What models with these bear, or requests with these fields make, is generated and not seen.
_HIDING_MODELS: Final = frozenset(("reasoning", "audio"))
_HIDING_FIELDS: Final = frozenset(("prediction", "echo"))


def may_be_sliced(flow: Flow) -> bool:
    """Whether all that is generated will pass us by, and anything bounds it. A hold that could be
    outrun unseen is taken in full; so is one that no budget limits, since nothing could cut it.
    """
    envelope, route, levels = flow.envelope, flow.route, flow.levels
    if envelope is None or route is None or levels is None:
        return False
    return (
        (levels.capped or bool(route.policy.hour_ceilings))
        and flow.operation in (CHAT, COMPLETIONS)
        and (envelope.best_of or 1) <= (envelope.n or 1)
        and _HIDING_MODELS.isdisjoint(route.model.capabilities)
        and _HIDING_FIELDS.isdisjoint(flow.fields)
    )


def begin(flow: Flow) -> None:
    """After admission: the backend may generate all that was asked for, slice by slice."""
    granted, quote = flow.granted, flow.quote
    if granted is not None and quote is not None and quote.first < quote.wanted:
        flow.first_slice = granted.output_tokens
        flow.granted = msgspec.structs.replace(granted, output_tokens=quote.wanted)


class Terms(msgspec.Struct, frozen=True):
    """Tokens per choice: held at admission, a slice, the most the backend was told."""

    first: int
    slice: int
    wanted: int
    choices: int


class Slices:
    """One stream's. Tokens here are of all choices together, as one hold covers them all."""

    def __init__(
        self, terms: Terms, take: Take, recall: Recall, count: Callable[[str], int]
    ) -> None:
        self.used = 0
        self.blocked: int | None = None  # the account that refused last; None: none did
        self.over = False  # what came last could not be covered: the stream is to be cut
        self._terms = terms
        self._take = take
        self._recall = recall
        self._leased: tuple[str, ...] = ()  # where leases were in the way of what was asked last
        self._count = count
        self._held = terms.first * terms.choices
        self._most = terms.wanted * terms.choices
        self._ahead = terms.slice * terms.choices // 2
        self._ask_at = self._ahead  # what is left when the next slice is asked for
        self._asked: asyncio.Future[Slice | None] | None = None
        self._lost = False

    def weigh(self, heard: list[str], reported: int) -> int:
        """What will have been used with one more event, which brought these texts; `reported` is
        the backend's own word so far.
        """
        tokens = max(1, sum(map(self._count, heard)))
        heard.clear()
        return max(self.used + tokens, reported)

    def covers(self, used: int) -> bool:
        """Whether so much is held; all that the backend may generate is always enough."""
        return used <= self._held or self._held >= self._most

    @property
    def spent(self) -> bool:
        """Nothing more may be relayed until more is held."""
        return not self.covers(self.used + 1)

    def spend(self, used: int) -> None:
        """So much has been relayed; asks for the next slice when it is time."""
        self.used = used
        if self._asked is None and self._held < self._most:
            left = self._held - used
            if 0 < left <= self._ask_at and not self._lost:
                self._ask(used)

    async def cover(self, used: int) -> bool:
        """Whether so much is held, once the store has said so. False: by `blocked` the budget
        refused, and where that is None the store did not answer, or has no such hold any more.
        """
        asked_now, recalls = False, 0
        while not self.covers(used):
            if self._asked is None:
                if asked_now and self._leased and await self._recall(self._leased, recalls):
                    asked_now, recalls = False, recalls + 1
                    continue
                if asked_now or self._lost:
                    self.over = True
                    return False
                asked_now = True
                self._ask(used)
            if self._asked is not None:
                # Cancelling the wait leaves the call on its way: what it takes ends with the hold.
                await asyncio.wait([self._asked])
        return True

    def _ask(self, used: int) -> None:
        terms = self._terms
        needed = max(self._held, used)
        upto = min(-(-needed // terms.choices) + terms.slice, terms.wanted)
        self._asked = asked = self._take(upto)
        asked.add_done_callback(lambda answer: self._answered(answer, upto))

    def _answered(self, answer: "asyncio.Future[Slice | None]", upto: int) -> None:
        self._asked, self.blocked, self._leased = None, None, ()
        self._ask_at = max(0, self._held - self.used) // 2
        if answer.cancelled() or answer.exception() is not None:
            return
        taken = answer.result()
        if taken is None:
            self._lost = True
            return
        self._held = max(self._held, taken.grant * self._terms.choices)
        if taken.grant >= upto:
            self._ask_at = self._ahead
        else:
            self.blocked, self._leased = taken.blocked, taken.leased
