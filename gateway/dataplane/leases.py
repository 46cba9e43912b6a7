"""Money that this worker may spend while the quota store is away: leases, granted beforehand on
every hard budget in mode `bounded` that it has used of late.

A lease is spent only while the store does not answer, until its time is over by the store's clock
or by ours, and never against another state of the store than the one that granted it. It can be
asked back, because a request that the store answers to comes first.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from gateway import clock
from gateway.dataplane.lease import Lease, Spend
from gateway.dataplane.lease_book import LeaseBook
from gateway.dataplane.levels import Standing
from gateway.dataplane.quote import Quote
from gateway.failpoints import failpoint
from gateway.stores import lease_file
from gateway.stores.lease_file import Kept
from gateway.stores.redis import bus
from gateway.stores.redis.holds import HoldStore
from gateway.stores.spool import Spool
from policies.leases import Lent, TakenBack

LOOK_EVERY_S: Final = 1.0
GIVE_BACK_WITHIN_S: Final = 2.0
RECALL_AGAIN_S: Final = 0.02

_LOG: Final = logging.getLogger(__name__)


class Leases:
    """Those of one worker. Only `look` and `recall` speak to the store, beside the requests."""

    def __init__(self, holds: HoldStore, spool: Spool, *, seconds: int, workers: int) -> None:
        """A lease lives for `seconds`, if it is not renewed; 0: there are none."""
        self.book = LeaseBook(
            spool.name, holds.epoch, holds.is_over, seconds=seconds, workers=workers
        )
        self.note = self.book.note
        self._holds = holds
        self._spool = spool
        self._written: list[Kept] | None = []  # None: a try at it failed
        self._looking = asyncio.Lock()

    def spend(self, standing: Standing, quote: Quote) -> Spend | None:
        """As LeaseBook.spend, now."""
        return self.book.spend(standing, quote, clock.monotonic_us())

    async def keep(self) -> None:
        """Looks after them until cancelled."""
        while self.book.is_open:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Asks for what requests of late may need, renews, and gives back what has had its time."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        book = self.book
        due = book.due(clock.monotonic_us())
        if due:
            failpoint("leases.asked")
        asked = [self._holds.lending(lease.tag, ask) for lease, ask in due]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        granted = []
        for (lease, _), answer in zip(due, answers, strict=True):
            if isinstance(answer, Lent):
                granted.append((lease, answer))
            else:
                book.unanswered(lease)
        if granted:
            failpoint("leases.granted")
        if await self._is_written(book.kept(granted)):
            if granted:
                failpoint("leases.written")
            for lease, lent in granted:
                book.answered(lease, lent)
        else:
            for lease, _ in granted:
                book.unwritten(lease)
        await self._give_back()
        await self._is_written(book.kept(()))

    async def _is_written(self, due: list[Kept]) -> bool:
        """Before anything granted is spent: what is not written would be forgotten by a rebuild;
        after something was given back: what is written would be set aside by it. False: the file
        says what it said before.
        """
        if due == self._written:
            return True
        known, self._written = self._written, None
        try:
            await asyncio.to_thread(lease_file.write, self._spool.path, due)
        except OSError as fault:
            if known is not None:  # not again at each look
                _LOG.warning("leases cannot be written down, so no more are taken: %s", fault)
            return False
        self._written = due
        return True

    async def _give_back(self) -> None:
        over = self.book.over()
        backs = [self._taking_back(lease) for lease in over]
        answers = await asyncio.gather(*backs, return_exceptions=True)
        gone = {one for one, answer in zip(over, answers, strict=True) if isinstance(answer, bool)}
        if gone:
            failpoint("leases.given_back")
        self.book.gone(gone)

    def _taking_back(self, lease: Lease) -> "asyncio.Future[bool]":
        return self._holds.taking_back(lease.tag, TakenBack(lease.id, lease.account.key))

    def recalled(self, account_keys: Sequence[str]) -> None:
        """Somebody needs this money for a request; sent on its way when this returns."""
        for lease in self.book.recalled(account_keys, clock.monotonic_us()):
            self._taking_back(lease).add_done_callback(_noted)

    async def recall(self, account_keys: Iterable[str], tries: int) -> bool:
        """Whether to try once more without: leases of these accounts stand in the way of a request
        that was told so `tries` times before.
        """
        names = list(account_keys)
        if not self.book.waits_for(names, tries, clock.monotonic_us()):
            return False
        if tries == 0:
            self.recalled(names)
            bus.recall(self._holds.channels, names)
        await asyncio.sleep(RECALL_AGAIN_S)
        return True

    async def end(self) -> None:
        """Gives back whatever can be; the rest is ended by whoever replays the spool."""
        self.book.close()
        try:
            async with asyncio.timeout(GIVE_BACK_WITHIN_S):
                await self._give_back()
        except TimeoutError:
            _LOG.info("leases could not be given back in time; the jobs will end them")


def _noted(answer: "asyncio.Future[bool]") -> None:
    """It stays among the retired until a look has seen it gone."""
    if not answer.cancelled():
        answer.exception()
