"""Counters made whole after the store lost them, accounts opened, and all of them compared with the
ledger from time to time. As gateway/jobs/rebuild_counters.py, open_accounts.py, tell_again.py and
gateway/stores/recount.py do, in their order.
"""

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from billing.usage import DECODER, UsageEvent
from gateway.jobs import restoration
from gateway.jobs.evidence import HELD, Findings, Unheld, ended_by_living, unheld_in
from gateway.jobs.rebuild_counters import marked, told
from gateway.jobs.replay_spool import handed_in
from gateway.jobs.restoration import Known, Over
from gateway.jobs.tell_again import unknown
from gateway.stores.counted import Counted
from gateway.stores.lease_file import Kept
from gateway.stores.recount import asked_of, corrections_of
from gateway.stores.redis.epochs import Epoch
from gateway.stores.redis.restoring import lent_again
from gateway.stores.sql.corrections import is_weak
from policies.leases import TakenBack
from policies.rebuild import held
from policies.recount import Correction
from tests.simulator import house
from tests.simulator.evidence import findings
from tests.simulator.kernel import Call, Process, Story, Unreachable
from tests.simulator.machine import Machine, Surroundings
from tests.simulator.store import REBUILDER
from tests.simulator.upkeep import TTL_MS

LOOK_EVERY_US: Final = 1_000_000
LEASE_MS: Final = 5_000
RENEW_EVERY_US: Final = 1_000_000
GRACE_US: Final = 500_000
COUNT_EVERY_US: Final = 600_000_000
COUNT_AFTER_CHANGE_US: Final = 30_000_000
FREE_TRIES: Final = 2
TRIES: Final = 8
HELD_TRIES: Final = 200
STILL: Final = ("still:s00", "drain:s00")
STILL_MS: Final = 10_000
STILL_WITHIN_US: Final = 8_000_000
STILL_AGAIN_US: Final = 10_000


class Counters:
    """The jobs of one machine that look after counters."""

    def __init__(self, world: Surroundings, machine: Machine, process: Process) -> None:
        self._world = world
        self._kernel = world.kernel
        self._store = world.store
        self._ledger = world.ledger
        self._machine = machine
        self._process = process
        self._house = house.configuration(world.scenario.budget, world.scenario.outage)
        self._known_epoch = -1
        self._told: set[str] = set()
        self._count_at_us = 0
        self._tokens = 0
        self._keeping = False

    def turn(self) -> Any:
        """One look: at the epoch, then at accounts that somebody waits for."""
        least = yield Call(self._ledger, "ledger.epochs", self._ledger.remembered)
        epoch, lacking = yield self._ask("epoch", "look")
        if not self._world.is_whole(self._store, epoch, least):
            yield from self._rebuild(epoch, least)
            return
        changed = least != self._known_epoch
        due = self._kernel.now_us >= self._count_at_us
        if not (changed or due or lacking):
            return
        mine = house.accounts(self._house, self._kernel.now_us + self._machine.offset_us)
        yield from self._recount(mine, unopened_only=True)
        if due:
            yield from self._recount(mine)
            self._count_at_us = self._kernel.now_us + COUNT_EVERY_US
        if changed:
            soon_us = self._kernel.now_us + COUNT_AFTER_CHANGE_US
            self._count_at_us = min(self._count_at_us, soon_us)
        self._known_epoch = least

    def count(self) -> Any:
        """Every account in force, now."""
        now_us = self._kernel.now_us + self._machine.offset_us
        yield from self._recount(house.accounts(self._house, now_us))

    # what workers have ended and nobody knows of

    def tell_again(self) -> Any:
        found = yield Call(self._ledger, "ledger.missing", self._untold, repeatable=False)
        before, self._told = self._told, {event.event_id for event in found.events}
        waiting = [event for event in found.events if event.event_id in before]
        if waiting:
            known = {event.event_id for event in (yield from self._journaled(None))}
            for event in unknown(waiting, known):
                yield self._ask("settle", "settle", handed_in(event, found))

    def _untold(self) -> Findings:
        spools = [spool for spool in self._machine.disk.spools.values() if spool.is_locked]
        missing = self._ledger.missing
        return restoration.all_of(ended_by_living(spool.records, missing) for spool in spools)

    # the counters of a store that lost them

    def _rebuild(self, epoch: Epoch | None, least: int) -> Any:
        token = self._token()
        if not (yield self._ask("lease.take", "take_lease", REBUILDER, token, LEASE_MS)):
            return
        self._keeping = True
        self._kernel.start(self._process, self._keep(token), RENEW_EVERY_US)
        try:
            yield from self._rebuild_under(token, epoch, least)
        finally:
            self._keeping = False
        yield self._ask("lease.return", "return_lease", REBUILDER, token)

    def _keep(self, token: str) -> Story:
        while self._keeping:
            with contextlib.suppress(Unreachable):
                yield self._ask("lease.renew", "renew_lease", REBUILDER, token, LEASE_MS)
            yield RENEW_EVERY_US

    def _rebuild_under(self, token: str, epoch: Epoch | None, least: int) -> Any:
        seen = max(least, epoch.number if epoch is not None else 0)
        number = yield Call(self._ledger, "ledger.begin", self._ledger.begin, seen)
        yield from self._at("rebuild.begun")
        closed = yield self._ask("epoch.close", "close_epoch", number, token)
        if closed is None:
            return
        yield from self._at("rebuild.closed")
        if epoch is not None or least:
            yield GRACE_US
        if (yield from self._made_whole(closed)):
            yield self._ask("epoch.open", "open_epoch", closed, token)
            yield from self._at("rebuild.opened")

    def _made_whole(self, closed: Epoch) -> Any:
        mine = house.accounts(self._house, self._kernel.now_us + self._machine.offset_us)
        known = yield from self._known()
        yield from self._hand_in(known.events, known.unheld)
        for event in known.booked:
            yield self._ask("settle", "settle", marked(event, known.unheld))
        yield from self._at("rebuild.told")
        yield from self._lift_ended()
        placed = []
        for ask in restoration.holds(known, mine, TTL_MS):
            done = yield self._ask("restore", "restore", closed, ask)
            if done is None:
                return False
            placed += [ask.hold_id] * done
        yield from self._at("rebuild.placed")
        if not (yield from self._lend_again(closed, known, {one.key for one in mine})):
            return False
        over = yield from self._over([one for one in known.living if one.hold_id in placed])
        yield from self._hand_in(over.events, over.unheld)
        for hold_id in sorted(over.hold_ids):
            yield self._ask("release", "release", hold_id, ())
        yield from self._recount(mine)
        yield from self._at("rebuild.counted")
        whole = yield from self._recount_held(mine)
        yield from self._at("rebuild.held")
        return whole

    def _lend_again(self, closed: Epoch, known: Known, in_force: Collection[str]) -> Any:
        living = {one.lease_id.rpartition("/")[0] for one in known.lent}
        writers = set(self._machine.disk.spools)
        for one in (yield self._ask("leases.read", "listed")):
            if one.owner in writers or one.owner in living:
                back = TakenBack(one.lease_id, one.account)
                if (yield self._ask("take_back", "take_back", back, closed)) is None:
                    return False
        for kept in known.lent:
            if kept.account.key in in_force and kept.amount:
                ask = lent_again(kept)
                if (yield self._ask("lend_again", "lend_again", closed, ask)) is None:
                    return False
        return True

    def _known(self) -> Any:
        """As restoration.known: what the spools of this machine say."""
        return (yield Call(self._ledger, "ledger.missing", self._read_spools, repeatable=False))

    def _read_spools(self) -> Known:
        events: list[UsageEvent] = []
        living: list[restoration.Living] = []
        unheld: dict[str, Unheld] = {}
        booked: list[UsageEvent] = []
        lent: list[Kept] = []
        for spool in self._machine.disk.spools.values():
            if spool.is_locked:
                one = restoration.by_living(
                    spool.records, spool.leases, spool.name, self._ledger.missing
                )
                events += one.events
                living += one.living
                unheld |= one.unheld
                booked += one.booked
                lent += one.lent
            else:
                found = findings(self._ledger, self._machine.disk, spool)
                events += [event for event in found.events if not is_weak(event)]
                unheld |= unheld_in(spool.records)
        return Known(tuple(events), tuple(living), unheld, tuple(booked), tuple(lent))

    def _hand_in(self, events: Iterable[UsageEvent], unheld: Mapping[str, Unheld]) -> Any:
        for event in events:
            done = told(event, unheld.get(event.request_id, HELD))
            yield self._ask("settle", "settle", done)

    def _lift_ended(self) -> Any:
        ids = list((yield self._ask("holds.read", "all_holds")))
        events = yield from self._journaled(None)
        booked = yield Call(self._ledger, "ledger.ended", self._ledger.ended, ids, events)
        for hold_id in booked:
            yield self._ask("settle", "settle", restoration.lifted(hold_id))

    def _over(self, placed: Sequence[restoration.Living]) -> Any:
        """What the ledger has not of those that have ended meanwhile."""
        over = self._done(placed)
        ids = [event.event_id for event in over.events]
        missing = yield Call(
            self._ledger, "ledger.missing", self._ledger.missing, ids, repeatable=False
        )
        events = tuple(event for event in over.events if event.event_id in missing)
        return msgspec.structs.replace(over, events=events)

    def _done(self, placed: Iterable[restoration.Living]) -> Over:
        """As restoration.done."""
        by_owner = restoration.of_owners(placed)
        found = [
            restoration.over_in(
                spool.records, by_owner.pop(spool.name, set()), writer_lives=spool.is_locked
            )
            for spool in self._machine.disk.spools.values()
        ]
        return restoration.together([*found, Over(frozenset().union(*by_owner.values()))])

    # accounts and the ledger

    def _recount(self, wanted: Sequence[Counted], *, unopened_only: bool = False) -> Any:
        for attempt in range(TRIES):
            at_rest = attempt >= FREE_TRIES
            if at_rest:
                done = yield from self._while_still(wanted, unopened_only)
            else:
                done = yield from self._part(wanted, unopened_only, at_rest=False)
            if done:
                return
        raise Unreachable(sent=False)

    def _while_still(self, wanted: Sequence[Counted], unopened_only: bool) -> Any:
        token, until_us = self._token(), self._kernel.now_us + STILL_WITHIN_US
        asked, drain = STILL
        try:
            yield self._ask("lease.take", "take_lease", asked, token, STILL_MS)
            while not (yield self._ask("lease.take", "take_lease", drain, token, STILL_MS)):
                if self._kernel.now_us > until_us:
                    raise Unreachable(sent=False)
                yield STILL_AGAIN_US
            done = yield from self._part(wanted, unopened_only, at_rest=True)
        finally:
            for name in (drain, asked):
                give = self._ask("lease.return", "return_lease", name, token)
                self._kernel.post(self._process, give, lambda _: None)
        return done

    def _part(self, wanted: Sequence[Counted], unopened_only: bool, *, at_rest: bool) -> Any:
        token = self._token()
        cut = yield self._ask("cut", "cut", token, [one.key for one in wanted])
        pairs = [
            (one, shown)
            for one, shown in zip(wanted, cut.shown, strict=True)
            if shown is None or not unopened_only
        ]
        if not pairs:
            return True
        events = (yield from self._journaled(cut.last)) if cut.entries else []
        due = yield Call(
            self._ledger, "ledger.totals", self._due, [one for one, _ in pairs], events
        )
        if not at_rest and (yield self._ask("cut", "cut", "", ())).last != cut.last:
            return False
        corrections = corrections_of(pairs, due)
        if not corrections:
            return True
        return (yield self._ask("correct", "correct", token, corrections))

    def _due(self, wanted: Sequence[Counted], events: Sequence[UsageEvent]) -> Mapping[str, int]:
        asked = {one.key: asked_of(one) for one in wanted}
        found = self._ledger.totals(set(asked.values()), events)
        return {key: found[one] for key, one in asked.items()}

    def _journaled(self, until: int | None) -> Any:
        packed = yield self._ask("journal.read", "journaled", until)
        return [DECODER.decode(one) for one in packed]

    def _recount_held(self, wanted: Sequence[Counted]) -> Any:
        for _ in range(HELD_TRIES):
            before = yield self._ask("holds.read", "all_holds")
            token = self._token()
            cut = yield self._ask("cut", "cut", token, [one.key for one in wanted])
            after = yield self._ask("holds.read", "all_holds")
            if after.keys() != before.keys():
                continue
            due = held(before.values())
            corrections = [
                Correction(one.key, 0, missing, one.window.end_us // 1000)
                for one, shown in zip(wanted, cut.shown, strict=True)
                if shown and (missing := due.get(one.key, 0) - shown.held)
            ]
            if not corrections or (yield self._ask("correct", "correct", token, corrections)):
                return True
        return False

    # asking the store

    def _at(self, step: str) -> Any:
        if pause_us := self._kernel.at(step, self._process):
            yield pause_us

    def _ask(self, name: str, method: str, *args: Any) -> Call:
        return Call(self._store, name, getattr(self._store, method), *args)

    def _token(self) -> str:
        self._tokens += 1
        return f"{self._process.name}:c{self._tokens}"
