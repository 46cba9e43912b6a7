"""What one worker knows of its leases, and what is due: decided here, done by `leases`.

Makes no call, waits for nothing. The time is given, in microseconds of a monotonic clock.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import msgspec

from gateway.dataplane.lease import Lease, Spend
from gateway.dataplane.levels import Standing
from gateway.dataplane.quote import Quote
from gateway.stores.lease_file import Kept
from gateway.stores.redis.epochs import Epoch
from policies.accounts import Account
from policies.holds import MAX_COUNTER
from policies.leases import Burn, LeaseAsked, Lent

RECALL_TRIES: Final = 15
_LEAST_MARGIN_US: Final = 500_000
_NOTHING_AGAIN_US: Final = 5_000_000  # after so long it is asked again where nothing came of it
_NOT_AFTER_RECALL_US: Final = 10_000_000
_STUCK_US: Final = 5_000_000  # who kept a lease when it was asked back is not waited for again
_MOST_A_LOOK: Final = 512

Asking = tuple[Lease, LeaseAsked]


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


class LeaseBook:
    """Of the worker whose spool is `owner`. `epoch` and `is_over` say what is known of the state of
    the store that granted a lease.
    """

    def __init__(
        self,
        owner: str,
        epoch: Callable[[str], Epoch | None],
        is_over: Callable[[str, Epoch], bool],
        *,
        seconds: int,
        workers: int,
    ) -> None:
        """A lease lives for `seconds`, if it is not renewed; 0: there are none."""
        self.leases: dict[str, Lease] = {}  # by account
        self._owner = owner
        self._epoch = epoch
        self._is_over = is_over
        self._workers = workers
        self._ttl_ms = seconds * 1000
        self._margin_us = max(_LEAST_MARGIN_US, seconds * 1_000_000 // 50)
        self._uses: dict[str, _Use] = {}
        self._used: dict[str, _Used] = {}
        self._retired: list[Lease] = []  # to be given back, once nothing of them is unsettled
        self._stuck_us: dict[str, int] = {}
        self._numbers = itertools.count()

    @property
    def is_open(self) -> bool:
        """Whether there are leases at all, and not for the last time."""
        return self._ttl_ms > 0

    def note(self, tag: str, standing: Standing, money: int) -> None:
        """A request on this path was admitted by the store, which holds so much."""
        use = self._uses.get(standing.path)
        if use is None:
            if not self._ttl_ms:
                return
            use = self._uses[standing.path] = _Use(tag, standing)
        use.money += money
        use.requests += 1

    def spend(self, standing: Standing, quote: Quote, now_us: int) -> Spend | None:
        """Takes what a request may cost out of the leases on all bounded accounts of its path;
        None: there is not enough on one of them. No answer is made shorter for a lease's sake: the
        budget may well have more, once it can be asked.
        """
        accounts = standing.accounts
        found = [self.leases.get(accounts[place].key) for place in standing.leased]
        leases = tuple(one for one in found if one is not None and self._is_good(one, now_us))
        if not leases or len(leases) < len(found):
            return None
        money = quote.worst.total(quote.wanted * quote.choices)
        if money > min([self.left(lease) for lease in leases]):
            return None
        ids = dict(zip(standing.leased, leases, strict=True))
        beside = tuple(ids[n].id if n in ids else "" for n in range(len(accounts)))
        return Spend(leases, beside, money)

    def left(self, lease: Lease) -> int:
        """What may still be spent of it."""
        return lease.left

    def _is_good(self, lease: Lease, now_us: int) -> bool:
        return now_us < lease.until_us and not self._is_over(lease.tag, lease.epoch)

    def due(self, now_us: int) -> list[Asking]:
        """What is to be asked of the store now, each to be `answered`. What has had its time is
        retired.
        """
        self._take_note(now_us)
        for lease in tuple(self.leases.values()):
            spent = lease.spent and not lease.unsettled
            if spent or now_us >= lease.until_us or self._outlived(lease):
                self.retire(lease)
        return list(itertools.islice(self._due(now_us), _MOST_A_LOOK))

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
        epoch = self._epoch(lease.tag)
        return epoch is not None and epoch != lease.epoch

    def _due(self, now_us: int) -> Iterable[Asking]:
        for key, used in self._used.items():
            epoch, lease = self._epoch(used.tag), self.leases.get(key)
            if epoch is None or not self._ttl_ms or now_us < used.not_before_us:
                continue
            if lease is None:
                if used.burn.typical <= 0:
                    continue
                id_ = f"{self._owner}/{next(self._numbers)}"
                lease = self.leases[key] = Lease(id_, used.tag, used.account, epoch)
            elif not self._wants_more(lease, used, now_us):
                continue
            lease.asked_us = now_us
            yield lease, self._ask(lease, used)

    def _wants_more(self, lease: Lease, used: _Used, now_us: int) -> bool:
        if lease.is_worn:
            return False
        aged = lease.until_us - now_us < self._ttl_ms * 500
        return aged or used.burn.wanted > lease.amount * 5 // 4

    def _ask(self, lease: Lease, used: _Used) -> LeaseAsked:
        wanted = min(used.burn.wanted, MAX_COUNTER)
        least = max(1, min(used.burn.typical, wanted))
        return LeaseAsked(lease.id, self._ttl_ms, wanted, least, self._workers, used.account)

    def kept(self, granted: Iterable[tuple[Lease, Lent]]) -> list[Kept]:
        """What has to be written down before any of the `granted` may be spent, and again once
        something was given back.
        """
        fresh = {lease.id: lent.amount for lease, lent in granted}
        living = [*self.leases.values(), *self._retired]
        return [
            Kept(one.id, one.tag, one.account, max(one.amount, fresh.get(one.id, 0)))
            for one in living
        ]

    def unanswered(self, lease: Lease) -> None:
        """What was asked for may have been lent all the same."""
        if not lease.amount:
            self.retire(lease)

    def unwritten(self, lease: Lease) -> None:
        """What was granted could not be written down and may not be spent. One that is written as
        it was before is good for that until its time is over; a new one is to be given back.
        """
        self._not_soon(lease)
        if not lease.amount and self.leases.get(lease.account.key) is lease:
            self.retire(lease)

    def _not_soon(self, lease: Lease) -> None:
        used = self._used.get(lease.account.key)
        if used is not None:
            used.not_before_us = max(used.not_before_us, lease.asked_us + _NOTHING_AGAIN_US)

    def answered(self, lease: Lease, lent: Lent) -> None:
        """Once it is written down: from now on it may be spent."""
        if self.leases.get(lease.account.key) is not lease:
            return
        if not lent.amount:
            del self.leases[lease.account.key]
            self._not_soon(lease)
        elif self._outlived(lease):
            self.retire(lease)  # another state of the store has answered
        else:
            life_ms = min(self._ttl_ms, lease.account.end_ms - lent.now_ms)
            lease.amount = max(lease.amount, lent.amount)
            lease.until_us = lease.asked_us + life_ms * 1000 - self._margin_us

    def retire(self, lease: Lease) -> None:
        """Nothing more is spent of it."""
        if self.leases.get(lease.account.key) is lease:
            del self.leases[lease.account.key]
        self._retired.append(lease)

    def over(self) -> list[Lease]:
        """Those to be given back, that nothing is unsettled of: the store has what was spent, so
        the rest is all that is left of them.
        """
        return [lease for lease in self._retired if self.may_end(lease)]

    def may_end(self, lease: Lease) -> bool:
        """Whether the store knows all that was spent of it."""
        return not lease.unsettled

    def gone(self, given_back: Collection[Lease]) -> None:
        """The store has confirmed it."""
        self._retired = [lease for lease in self._retired if lease not in given_back]

    def recalled(self, account_keys: Sequence[str], now_us: int) -> list[Lease]:
        """Somebody needs this money for a request; which leases can be given back at once."""
        found = [self.leases[key] for key in account_keys if key in self.leases]
        for key in account_keys:
            if key in self._used:
                self._used[key].not_before_us = now_us + _NOT_AFTER_RECALL_US
        for lease in found:
            self.retire(lease)
        return [lease for lease in found if self.may_end(lease)]

    def waits_for(self, account_keys: Sequence[str], tries: int, now_us: int) -> bool:
        """Whether leases in the way of a request, that was told so `tries` times before, are worth
        waiting for.
        """
        path = " ".join(account_keys)
        if self._stuck_us.get(path, 0) > now_us:
            return False
        if tries >= RECALL_TRIES:
            self._stuck_us = {p: at for p, at in self._stuck_us.items() if at > now_us}
            self._stuck_us[path] = now_us + _STUCK_US
            return False
        return True

    def close(self) -> None:
        """No more leases; those there are retire."""
        self._ttl_ms = 0
        for lease in tuple(self.leases.values()):
            self.retire(lease)
