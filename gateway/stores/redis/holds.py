"""Limits and holds in the store: admit, settle, release, extend, slice, each one atomic step.

The rules are in policies.budgets, .limits and .slices; admit.lua and its siblings carry them out.
This file gives each request its answer, and sees to it that no hold is left behind by a caller that
went away: a cancelled, late or lost admission is released by the store client itself.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from gateway.stores.redis import keys, wire
from gateway.stores.redis.channel import Channels, Reply, StoreUnavailable, pack
from gateway.stores.redis.epochs import Epoch, Guard
from gateway.stores.redis.lane import Lane
from gateway.stores.redis.patience import Patience
from gateway.stores.redis.scripts import (
    ADMIT,
    EXTEND,
    KEEP,
    LEND,
    RELEASE,
    SETTLE,
    SLICE,
    TAKE_BACK,
)
from policies.budgets import (
    MONEY,
    NO_CAP,
    TOKENS,
    Account,
    Admission,
    Granted,
    Reaping,
    Refused,
    Settlement,
)
from policies.idempotency import Keeping, Replay, Ticket
from policies.leases import LeaseAsked, Lent, TakenBack
from policies.limits import Gate, Slot
from policies.slices import Slice, SliceAsked

__all__ = [
    "MONEY",
    "NO_CAP",
    "TOKENS",
    "Account",
    "Admission",
    "Gate",
    "Granted",
    "HoldStore",
    "Keeping",
    "Reaping",
    "Refused",
    "Replay",
    "Settlement",
    "Slice",
    "Slot",
    "StoreUnavailable",
    "Ticket",
]

Admitted = Granted | Refused | Replay
Corrections = Sequence[tuple[str, int]]

HOLD_TTL_MS: Final = 30_000
ASKED_FOR_MS: Final = 60_000
MOST_OWED: Final = 100_000  # beyond it the expiry of the holds has to do
PAY_AGAIN_S: Final = 1.0  # when the store answers but would not release


class _Release(msgspec.Struct, frozen=True):
    hold_id: str
    gate_corrections: tuple[tuple[str, int], ...]


class _Tag(msgspec.Struct, frozen=True):
    """The lanes of one tag."""

    admits: Lane[Admission, Admitted]
    settles: Lane[Settlement, bool]
    releases: Lane[_Release, bool]
    extends: Lane[str, bool]
    slices: Lane[SliceAsked, Slice | None]
    keeps: Lane[Keeping, bool]
    lends: Lane[LeaseAsked, Lent]
    backs: Lane[TakenBack, bool]


class HoldStore:
    """Holds of all tags over this process's channels. Belongs to one event loop."""

    def __init__(
        self,
        channels: Channels,
        *,
        admit_within_s: float = 1.0,
        settle_within_s: float = 5.0,
        ttl_ms: int = HOLD_TTL_MS,
    ) -> None:
        """`ttl_ms`: how long a hold lives unless it is extended."""
        self.ttl_ms = ttl_ms
        self._channels = channels
        self._admit_within_s = admit_within_s
        self._settle_within_s = settle_within_s
        self._tags: dict[str, _Tag] = {}
        self._owed: dict[tuple[str, str], _Release] = {}
        self._again: asyncio.TimerHandle | None = None
        self._guards: dict[str, Guard] = {}
        self._least: Mapping[str, int] = {}
        self._heard_us: int | None = None
        channels.when_up(self._pay_owed)

    async def admit(self, tag: str, admission: Admission) -> Admitted:
        """Take every limit and place the hold on every account, or nothing. A Replay: another
        request has the ticket.

        Raises StoreUnavailable when there is no answer in time. After that, and when this call is
        cancelled, the hold id is spent: whatever the store made of it is released as soon as that
        is known, with the tokens taken from rate limits given back. Try again with a fresh id. Do
        not wrap this call in `asyncio.wait_for`: it has its own deadline, and wait_for may drop an
        answer that arrived.
        """
        lanes = self._of(tag)
        patience = lanes.admits.patience
        if patience is not None and patience.lost:  # nothing is owed: it was not sent
            raise StoreUnavailable("the store was too slow just now")
        caller = lanes.admits.put(wire.admission_args(admission), admission)
        try:
            return await caller
        except asyncio.CancelledError:
            if caller.done() and not caller.cancelled() and caller.exception() is None:
                self._unclaimed(tag, admission, caller.result())
            raise

    def at_least(self, epochs: Mapping[str, int], heard_us: int | None = None) -> None:
        """The epochs that the ledger remembers, by tag: state of an earlier one is stale.
        `heard_us`: when it was asked, by the monotonic clock. Who says that once has to say it
        again after each new connection to the store (`channels.when_up`).
        """
        self._least = epochs
        self._heard_us = heard_us if heard_us is not None else self._heard_us
        for tag, guard in self._guards.items():
            guard.at_least(epochs.get(tag, 0), heard_us)

    async def learn_epoch(self, tag: str) -> bool:
        """Ask the store which epoch of the tag's counters it has; whether it is one to admit
        against. Admissions learn it by themselves, for the price of one more round trip.
        """
        guard = self._guard(tag)
        with contextlib.suppress(StoreUnavailable):
            text = await self._channels.of(tag).ask("GET", keys.epoch(tag))
            return text is not None and guard.told(text.decode(errors="replace"))
        return False

    def needs_account(self, tag: str) -> None:
        """Ask the jobs to open what is not open. Whether they hear of it is not known."""
        with contextlib.suppress(StoreUnavailable):
            self._channels.of(tag).send(
                pack("SET", keys.unopened(tag), "1", "PX", ASKED_FOR_MS), lambda _: None
            )

    @property
    def channels(self) -> Channels:
        """What the calls go over."""
        return self._channels

    async def settle(self, tag: str, settlement: Settlement) -> bool:
        """Post the truth in place of the hold; the event goes to the journal in the same step.

        Answers whether the hold was there; if not, no counter moved and only the journal has it.
        Raises StoreUnavailable when the outcome is unknown or nothing was sent: asking again is
        safe, a second settlement finds no hold, and the ledger knows an event it has seen.
        Cancelling the caller does not take the call back.
        """
        return await self.settling(tag, settlement)

    def settling(self, tag: str, settlement: Settlement) -> asyncio.Future[bool]:
        """As `settle`, on its way when this returns. Cancelling the future does not take it
        back.
        """
        return self._of(tag).settles.put(wire.settlement_args(settlement), settlement)

    async def release(self, tag: str, hold_id: str, gate_corrections: Corrections = ()) -> bool:
        """Undo a hold that led to nothing; answers whether it was there.

        Raises StoreUnavailable when the store cannot be asked now; the release is then owed, and
        paid when the store is back. The id is spent afterwards.
        """
        release = _Release(hold_id, tuple(gate_corrections))
        self._owe(tag, release)  # until the answer is here, whatever becomes of the caller
        return await self._of(tag).releases.put(_release_args(release), release)

    async def extend(self, tag: str, hold_ids: Sequence[str], ttl_ms: int) -> tuple[str, ...]:
        """Let these holds live for another `ttl_ms`; answers the ids the store does not have.

        Raises StoreUnavailable.
        """
        lane = self._of(tag).extends
        calls = (lane.put(wire.extension_args(hold_id, ttl_ms), hold_id) for hold_id in hold_ids)
        found = await asyncio.gather(*calls)
        return tuple(hold_id for hold_id, was in zip(hold_ids, found, strict=True) if not was)

    def slicing(self, tag: str, hold_id: str, upto: int) -> asyncio.Future[Slice | None]:
        """Raise the hold's grant to `upto` output tokens per choice, or as far as its accounts can
        pay; on its way when this returns. None: there is no such hold.

        The future may fail with StoreUnavailable. Cancelling it, or losing it, loses no money: what
        the store took stands in the hold, and ends with it.
        """
        asked = SliceAsked(hold_id, upto)
        return self._of(tag).slices.put(wire.slice_args(asked), asked)

    def lending(self, tag: str, asked: LeaseAsked) -> asyncio.Future[Lent]:
        """Make this lease what it should be; on its way when this returns.

        The future may fail with StoreUnavailable: it is then what it was, or what was asked for.
        """
        return self._of(tag).lends.put(wire.lease_args(asked), asked)

    def taking_back(self, tag: str, back: TakenBack) -> asyncio.Future[bool]:
        """End this lease; answers whether it was there. On its way when this returns, and the
        future may fail with StoreUnavailable.
        """
        return self._of(tag).backs.put(wire.back_args(back), back)

    def epoch(self, tag: str) -> Epoch | None:
        """The epoch that the store has, as far as we know."""
        return self._guard(tag).known

    def is_over(self, tag: str, epoch: Epoch) -> bool:
        """Whether the store is known to have another one by now."""
        return self._guard(tag).is_over(epoch)

    def keep(self, tag: str, keeping: Keeping) -> None:
        """Store an answer, after all that was sent before and before all that is sent later. That
        it is there is not promised: no room, or no store.
        """
        self._of(tag).keeps.post(wire.keeping_args(keeping), keeping)

    def note(
        self, tag: str, decision: bytes, standing: bytes, written: Callable[[Reply], None]
    ) -> None:
        """A decision that led to nothing, into the journal; `written` hears what became of it.
        StoreUnavailable: nothing was sent.
        """
        fields = (b"d", decision, b"s", standing)
        self._channels.of(tag).send(pack("XADD", keys.journal(tag), "*", *fields), written)

    @property
    def owed(self) -> int:
        """Releases that the store has not confirmed yet."""
        return len(self._owed)

    @property
    def busy(self) -> bool:
        """Whether any call is on its way or a release is owed."""
        unsent = any(
            lane.pending for tag in self._tags.values() for lane in msgspec.structs.astuple(tag)
        )
        return unsent or bool(self._owed) or self._channels.waiting > 0

    async def drain(self, within_s: float) -> bool:
        """Wait until nothing is on its way; False when `within_s` did not suffice."""
        try:
            async with asyncio.timeout(within_s):
                while self.busy:
                    with contextlib.suppress(StoreUnavailable):
                        await self._channels.open()
                        await self._channels.caught_up()
        except TimeoutError:
            return False
        return True

    def _of(self, tag: str) -> _Tag:
        lanes = self._tags.get(tag)
        if lanes is None:
            lanes = self._tags[tag] = self._lanes(tag)
        return lanes

    def _guard(self, tag: str) -> Guard:
        if tag not in self._guards:
            least = self._least.get(tag, 0)
            self._guards[tag] = Guard(self._channels.of(tag), least, self._heard_us)
        return self._guards[tag]

    def _lanes(self, tag: str) -> _Tag:
        channel, index, patience_s = self._channels.of(tag), keys.holds(tag), self._settle_within_s
        guard, patience = self._guard(tag), Patience(channel, self._admit_within_s / 4)
        guarded = (index, keys.epoch(tag))
        unclaimed = partial(self._unclaimed, tag)
        paid, unpaid = partial(self._paid, tag), partial(self._unpaid, tag)
        return _Tag(
            admits=Lane(
                channel,
                ADMIT,
                guarded,
                wire.admitted,
                unclaimed,
                self._admit_within_s,
                revocable=True,
                guard=guard,
                patience=patience,
            ),
            settles=Lane(
                channel, SETTLE, (index, keys.journal(tag)), wire.found, _noted, patience_s
            ),
            releases=Lane(channel, RELEASE, (index,), paid, unpaid, patience_s),
            extends=Lane(channel, EXTEND, (index,), wire.found, _noted, patience_s),
            slices=Lane(
                channel, SLICE, guarded, wire.sliced, _noted, self._admit_within_s, guard=guard
            ),
            keeps=Lane(channel, KEEP, keys.answers(tag), wire.found, _noted, patience_s),
            lends=Lane(
                channel,
                LEND,
                (keys.leases(tag), keys.epoch(tag)),
                wire.lent,
                _noted,
                patience_s,
                guard=guard,
            ),
            backs=Lane(channel, TAKE_BACK, (keys.leases(tag),), wire.found, _noted, patience_s),
        )

    def _unclaimed(self, tag: str, ask: Admission, answer: Admitted | None) -> None:
        """Nobody waits for this admission any more; None: the store may or may not have it."""
        if isinstance(answer, Refused | Replay):
            return
        # The request never left us, so its tokens were not used. That it was made still counts.
        unused = tuple((g.key, -g.advance_us) for g in ask.gates if g.kind == "tpm")
        release = _Release(ask.hold_id, unused)
        self._owe(tag, release)
        if self._channels.of(tag).up:
            self._of(tag).releases.post(_release_args(release), release)

    def _owe(self, tag: str, release: _Release) -> None:
        if len(self._owed) < MOST_OWED:
            self._owed[tag, release.hold_id] = release

    def _paid(self, tag: str, release: _Release, now_us: int, answer: int) -> bool:
        self._owed.pop((tag, release.hold_id), None)
        return wire.found(release, now_us, answer)

    def _unpaid(self, tag: str, release: _Release, answer: bool | None) -> None:
        if answer is not None:
            return
        self._owe(tag, release)
        if self._channels.of(tag).up and self._again is None:
            self._again = asyncio.get_running_loop().call_later(PAY_AGAIN_S, self._pay_owed)

    def _pay_owed(self) -> None:
        self._again = None
        for (tag, _), release in self._owed.items():
            self._of(tag).releases.post(_release_args(release), release)


def _release_args(release: _Release) -> tuple[bytes]:
    return wire.release_args(release.hold_id, release.gate_corrections)


def _noted(_subject: Any, _answer: object) -> None:
    """A settlement or extension nobody waits for is done, or its caller was told and asks again; an
    answer that was not kept is not missed.
    """
