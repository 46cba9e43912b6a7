"""Money that this worker may spend while the quota store is away: leases, granted beforehand on
every hard budget in mode `bounded` that it has used of late.

A lease is spent only while the store does not answer, until its time is over by the store's clock
or by ours, and never against another state of the store than the one that granted it. It can be
asked back, because a request that the store answers to comes first.
"""

import asyncio
import itertools
import logging
from collections.abc import Iterable
from typing import Final

import msgspec

from gateway import clock
from gateway.dataplane.lease import Lease, Spend
from gateway.dataplane.levels import Standing
from gateway.dataplane.quote import Quote
from gateway.stores import lease_file
from gateway.stores.lease_file import Kept
from gateway.stores.redis import bus
from gateway.stores.redis.holds import HoldStore
from gateway.stores.spool import Spool
from policies.accounts import Account
from policies.holds import MAX_COUNTER
from policies.leases import Burn, LeaseAsked, Lent, TakenBack

LOOK_EVERY_S: Final = 1.0
GIVE_BACK_WITHIN_S: Final = 2.0
RECALL_TRIES: Final = 15
RECALL_AGAIN_S: Final = 0.02
_LEAST_MARGIN_US: Final = 500_000
_NOTHING_AGAIN_US: Final = 5_000_000  # after so long it is asked again where nothing was lent
_NOT_AFTER_RECALL_US: Final = 10_000_000
_STUCK_US: Final = 5_000_000  # who kept a lease when it was asked back is not waited for again
_MOST_A_LOOK: Final = 512

_LOG: Final = logging.getLogger(__name__)


class _Use(msgspec.Struct, gc=False):
    """What was held on one path since the last look."""

    tag: str
    standing: Standing
    money: int = 0
    requests: int = 0


class _Used(msgspec.Struct, gc=False):
    """What we know of one account's use."""

    tag: str
    account: Account
    burn: Burn
    last_us: int
    not_before_us: int = 0  # no lease is asked for until then


class Leases:
    """Those of one worker. Only `look` and `recall` speak to the store, beside the requests."""

    def __init__(self, holds: HoldStore, spool: Spool, *, seconds: int, workers: int) -> None:
        """A lease lives for `seconds`, if it is not renewed; 0: there are none."""
        self._holds = holds
        self._spool = spool
        self._workers = workers
        self._ttl_ms = seconds * 1000
        self._margin_us = max(_LEAST_MARGIN_US, seconds * 1_000_000 // 50)
        self._uses: dict[str, _Use] = {}
        self._used: dict[str, _Used] = {}
        self._leases: dict[str, Lease] = {}  # by account
        self._retired: list[Lease] = []  # to be given back, once nothing of them is unsettled
        self._stuck_us: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._numbers = itertools.count()
        self._looking = asyncio.Lock()

    def note(self, tag: str, standing: Standing, money: int) -> None:
        """A request on this path was admitted by the store, which holds so much."""
        use = self._uses.get(standing.path)
        if use is None:
            if not self._ttl_ms:
                return
            use = self._uses[standing.path] = _Use(tag, standing)
        use.money += money
        use.requests += 1

    def spend(self, standing: Standing, quote: Quote) -> Spend | None:
        """Takes what a request may cost out of the leases on all bounded accounts of its path;
        None: there is not enough on one of them. No answer is made shorter for a lease's sake: the
        budget may well have more, once it can be asked.
        """
        accounts, now_us = standing.accounts, clock.monotonic_us()
        found = [self._leases.get(accounts[place].key) for place in standing.leased]
        leases = tuple(one for one in found if one is not None and self._is_good(one, now_us))
        if not leases or len(leases) < len(found):
            return None
        money = quote.worst.total(quote.wanted * quote.choices)
        if money > min([lease.left for lease in leases]):
            return None
        ids = dict(zip(standing.leased, leases, strict=True))
        beside = tuple(ids[n].id if n in ids else "" for n in range(len(accounts)))
        return Spend(leases, beside, money)

    def _is_good(self, lease: Lease, now_us: int) -> bool:
        return now_us < lease.until_us and not self._holds.is_over(lease.tag, lease.epoch)

    async def keep(self) -> None:
        """Looks after them until cancelled."""
        while self._ttl_ms:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except OSError as fault:  # what is not in the file may not be spent
                _LOG.warning("leases cannot be written down, so there are none: %s", fault)

    async def look(self) -> None:
        """Asks for what requests of late may need, renews, and gives back what has had its time."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        now_us = clock.monotonic_us()
        self._take_note(now_us)
        for lease in tuple(self._leases.values()):
            spent = lease.spent and not lease.unsettled
            if spent or now_us >= lease.until_us or self._outlived(lease):
                self._retire(lease)
        due = list(itertools.islice(self._due(now_us), _MOST_A_LOOK))
        asked = [self._holds.lending(lease.tag, self._ask(lease, used)) for lease, used in due]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        granted = []
        for (lease, _), answer in zip(due, answers, strict=True):
            if isinstance(answer, Lent):
                granted.append((lease, answer))
            elif not lease.amount:
                self._retire(lease)  # it may have been lent all the same
        await self._write({lease.id: lent.amount for lease, lent in granted if lent.amount})
        for lease, lent in granted:
            if self._leases.get(lease.account.key) is lease:
                self._hold(lease, lent)
        await self._give_back()
        await self._write({})

    def _take_note(self, now_us: int) -> None:
        uses, self._uses = self._uses, {}
        fresh: dict[str, list[int]] = {}
        for use in uses.values():
            for place in use.standing.leased:
                account = use.standing.accounts[place]
                sums = fresh.setdefault(account.key, [0, 0])
                sums[0] += use.money
                sums[1] += use.requests
                known = self._used.get(account.key)
                if known is None:
                    known = _Used(use.tag, account, Burn(), now_us)
                    self._used[account.key] = known
                known.account, known.last_us = account, now_us
        for key, used in tuple(self._used.items()):
            money, requests = fresh.get(key, (0, 0))
            used.burn = used.burn.after_a_second(money, requests)
            if now_us - used.last_us > self._ttl_ms * 1000:
                del self._used[key]

    def _outlived(self, lease: Lease) -> bool:
        epoch = self._holds.epoch(lease.tag)
        return epoch is not None and epoch != lease.epoch

    def _due(self, now_us: int) -> Iterable[tuple[Lease, _Used]]:
        for key, used in self._used.items():
            epoch, lease = self._holds.epoch(used.tag), self._leases.get(key)
            if epoch is None or not self._ttl_ms or now_us < used.not_before_us:
                continue
            if lease is None:
                if used.burn.typical <= 0:
                    continue
                id_ = f"{self._spool.name}/{next(self._numbers)}"
                lease = self._leases[key] = Lease(id_, used.tag, used.account, epoch)
            elif not self._wants_more(lease, used, now_us):
                continue
            lease.asked_us = now_us
            yield lease, used

    def _wants_more(self, lease: Lease, used: _Used, now_us: int) -> bool:
        if lease.is_worn:
            return False
        aged = lease.until_us - now_us < self._ttl_ms * 500
        return aged or used.burn.wanted > lease.amount * 5 // 4

    def _ask(self, lease: Lease, used: _Used) -> LeaseAsked:
        wanted = min(used.burn.wanted, MAX_COUNTER)
        least = max(1, min(used.burn.typical, wanted))
        return LeaseAsked(lease.id, self._ttl_ms, wanted, least, self._workers, used.account)

    async def _write(self, granted: dict[str, int]) -> None:
        """Before anything `granted` is spent: what is not written would be forgotten by a rebuild;
        after something was given back: what is written would be set aside by it.
        """
        living = [*self._leases.values(), *self._retired]
        due = {one.id: max(one.amount, granted.get(one.id, 0)) for one in living}
        if due == self._written:
            return
        kept = [Kept(one.id, one.tag, one.account, due[one.id]) for one in living]
        self._written = {}
        await asyncio.to_thread(lease_file.write, self._spool.path, kept)
        self._written = due

    def _hold(self, lease: Lease, lent: Lent) -> None:
        used = self._used.get(lease.account.key)
        if not lent.amount:
            del self._leases[lease.account.key]
            if used is not None:
                used.not_before_us = lease.asked_us + _NOTHING_AGAIN_US
        elif self._outlived(lease):
            self._retire(lease)  # another state of the store has answered
        else:
            life_ms = min(self._ttl_ms, lease.account.end_ms - lent.now_ms)
            lease.amount = max(lease.amount, lent.amount)
            lease.until_us = lease.asked_us + life_ms * 1000 - self._margin_us

    def _retire(self, lease: Lease) -> None:
        if self._leases.get(lease.account.key) is lease:
            del self._leases[lease.account.key]
        self._retired.append(lease)

    async def _give_back(self) -> None:
        """Those that nothing is unsettled of: the store has what was spent, so the rest is all that
        is left of them.
        """
        over = [lease for lease in self._retired if not lease.unsettled]
        backs = [
            self._holds.taking_back(lease.tag, TakenBack(lease.id, lease.account.key))
            for lease in over
        ]
        answers = await asyncio.gather(*backs, return_exceptions=True)
        gone = {one for one, answer in zip(over, answers, strict=True) if isinstance(answer, bool)}
        self._retired = [lease for lease in self._retired if lease not in gone]

    def recalled(self, account_keys: list[str]) -> None:
        """Somebody needs this money for a request; sent on its way when this returns."""
        not_before_us = clock.monotonic_us() + _NOT_AFTER_RECALL_US
        found = [self._leases[key] for key in account_keys if key in self._leases]
        for key in account_keys:
            if key in self._used:
                self._used[key].not_before_us = not_before_us
        for lease in found:
            self._retire(lease)
            if not lease.unsettled:
                back = TakenBack(lease.id, lease.account.key)
                self._holds.taking_back(lease.tag, back).add_done_callback(_noted)

    async def recall(self, account_keys: Iterable[str], tries: int) -> bool:
        """Whether to try once more without: leases of these accounts stand in the way of a request
        that was told so `tries` times before.
        """
        names, now_us = list(account_keys), clock.monotonic_us()
        path = " ".join(names)
        if self._stuck_us.get(path, 0) > now_us:
            return False
        if tries >= RECALL_TRIES:
            self._stuck_us = {p: at for p, at in self._stuck_us.items() if at > now_us}
            self._stuck_us[path] = now_us + _STUCK_US
            return False
        if tries == 0:
            self.recalled(names)
            bus.recall(self._holds.channels, names)
        await asyncio.sleep(RECALL_AGAIN_S)
        return True

    async def end(self) -> None:
        """Gives back whatever can be; the rest is ended by whoever replays the spool."""
        self._ttl_ms = 0
        for lease in tuple(self._leases.values()):
            self._retire(lease)
        try:
            async with asyncio.timeout(GIVE_BACK_WITHIN_S):
                await self._give_back()
        except TimeoutError:
            _LOG.info("leases could not be given back in time; the jobs will end them")


def _noted(answer: "asyncio.Future[bool]") -> None:
    """It stays among the retired until a look has seen it gone."""
    if not answer.cancelled():
        answer.exception()
