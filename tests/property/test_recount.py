"""Whatever is held and settled around a recount, and however often it is run again: afterwards an
account shows what was settled, and the scripts of it do what their model says.
"""

import itertools
import os
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.stores.redis import keys, wire
from gateway.stores.redis.scripts import ADMIT, CORRECT, CUT, SETTLE, SLICE
from policies import budgets, recount
from policies.budgets import (
    MAX_COUNTER,
    MONEY,
    NO_CAP,
    Account,
    Admission,
    Balance,
    Hold,
    State,
)
from policies.recount import Adoption, Correction
from policies.slices import SliceAsked, take_slice

LARGE = 123_456_789_012_345
NAMES = ["b0", "b1", "b2"]
FOREVER_MS = 2**52
EPOCH = "open:1:0:abc"
_tags = (f"r{os.getpid()}x{n}" for n in itertools.count())

amounts = st.sampled_from([0, 1, 999, LARGE]) | st.integers(0, LARGE)
steps = st.one_of(
    st.tuples(st.just("spend"), st.sets(st.sampled_from(NAMES)), amounts),
    st.tuples(st.just("hold"), st.sets(st.sampled_from(NAMES)), amounts),
    st.tuples(st.just("settle"), amounts),
    st.tuples(st.just("late"), st.sets(st.sampled_from(NAMES)), amounts, st.booleans()),
    st.tuples(st.just("read")),
    st.tuples(st.just("cut"), st.lists(st.sampled_from(NAMES), unique=True)),
    st.tuples(st.just("correct"), st.booleans()),
)


class Both:
    """One history, lived by the store and by the model."""

    def __init__(self, client: redis.Redis, tag: str) -> None:
        self.client, self.tag = client, tag
        self.state = State()
        self.settled = dict.fromkeys(NAMES, 0)  # what belongs to each account, attached or not
        self.held: list[tuple[str, set[str]]] = []
        self.pending: tuple[str, list[Correction], list[Adoption]] | None = None
        self.read: list[Hold] | None = None  # the living holds, at some time before the next cut
        self.numbers = itertools.count()
        client.set(keys.epoch(tag), EPOCH)

    def key(self, name: str) -> str:
        return keys.account(self.tag, name, "w")

    def hold(self, names: set[str], amount: int, *, output: int = 0, wanted: int = 0) -> None:
        """On all accounts that are open; the request belongs to others too."""
        attached = tuple(
            Account(self.key(name), NO_CAP, 0, FOREVER_MS, MONEY, name)
            for name in sorted(names)
            if self.key(name) in self.state.accounts
        )
        ask = Admission(
            f"req_{next(self.numbers)}",
            30_000,
            amount,
            output,
            0,
            wanted,
            0,
            1,
            (),
            (),
            attached,
            b"kept",
        )
        packed = wire.admission_args(ask)
        guarded = [keys.holds(self.tag), keys.epoch(self.tag)]
        now_us, _ = self.client.eval(ADMIT.text, 2, *guarded, EPOCH, *packed)
        self.state, _ = budgets.admit(self.state, ask, now_us)
        self.held.append((ask.hold_id, names))

    def settle(self, amount: int) -> None:
        if not self.held:
            return
        hold_id, names = self.held.pop(0)
        done = budgets.Settlement(hold_id, amount, 0, (), b"x")
        names_of = [keys.holds(self.tag), keys.journal(self.tag)]
        now_us, _ = self.client.eval(SETTLE.text, 2, *names_of, *wire.settlement_args(done))
        self.state, _ = budgets.settle(self.state, done, now_us)
        for name in names:
            self.settled[name] += amount

    def late(self, names: set[str], amount: int, *, twice: bool) -> None:
        """A request that was admitted without the store, on accounts open or not."""
        accounts = tuple(
            Account(self.key(name), NO_CAP, 0, FOREVER_MS, MONEY, name, FOREVER_MS)
            for name in sorted(names)
        )
        number = next(self.numbers)
        done = budgets.Settlement(f"late_{number}", amount, 0, (), b"x", unheld=accounts)
        names_of = [keys.holds(self.tag), keys.journal(self.tag)]
        for _ in range(1 + twice):
            now_us, _ = self.client.eval(SETTLE.text, 2, *names_of, *wire.settlement_args(done))
            self.state, _ = budgets.settle(self.state, done, now_us)
        for name in names:
            self.settled[name] += amount

    def living(self) -> list[Hold]:
        return [hold for hold in self.state.holds.values() if hold is not None]

    def grow(self, upto: int) -> None:
        """The hold that was placed last."""
        asked = SliceAsked(self.held[-1][0], upto)
        guarded = [keys.holds(self.tag), keys.epoch(self.tag)]
        self.client.eval(SLICE.text, 2, *guarded, EPOCH, *wire.slice_args(asked))
        self.state, _ = take_slice(self.state, asked)

    def adopted(self, opened: list[str], living: list[Hold]) -> list[Adoption]:
        """Holds that belong on accounts that are opened, as they were read before the cut."""
        belong = dict(self.held)
        found = []
        for hold in living:
            ask = hold.admission
            named = {account.key for account in ask.accounts}
            more = tuple(
                Account(self.key(name), NO_CAP, 0, FOREVER_MS, MONEY, name)
                for name in opened
                if name in belong.get(ask.hold_id, ()) and self.key(name) not in named
            )
            if more:
                found.append(Adoption(hold, more))
        return found

    def cut(self, names: list[str]) -> None:
        living = self.living() if self.read is None else self.read
        self.read = None
        token = f"cut{next(self.numbers)}"
        wanted = [self.key(name) for name in names]
        _, entries, *figures = self.client.eval(
            CUT.text, 2, keys.cut(self.tag), keys.journal(self.tag), token, 60_000, *wanted
        )
        self.state, shown, length = recount.cut(self.state, token, wanted)
        assert entries == length
        pairs = zip(figures[::2], figures[1::2], strict=True)
        assert [None if p is None else Balance(int(p), int(h)) for p, h in pairs] == list(shown)
        missing = [
            Correction(key, self.settled[name] - (was.posted if was else 0), 0, FOREVER_MS)
            for name, key, was in zip(names, wanted, shown, strict=True)
        ]
        opened = [name for name, was in zip(names, shown, strict=True) if was is None]
        self.pending = token, missing, self.adopted(opened, living)

    def correct(self, *, twice: bool) -> None:
        if self.pending is None:
            return
        token, corrections, adopted = self.pending
        told = wire.correction_args(corrections, adopted)
        named = [keys.cut(self.tag), keys.holds(self.tag)]
        for _ in range(1 + twice):
            done = self.client.eval(CORRECT.text, 2, *named, token, *told)
            self.state, expected = recount.correct(self.state, token, corrections, adopted)
            assert bool(done) == expected

    def agree(self) -> None:
        for name in NAMES:
            found = {k.decode(): int(v) for k, v in self.client.hgetall(self.key(name)).items()}
            expected = self.state.accounts.get(self.key(name))
            assert (Balance(**found) if found else None) == expected
        for hold in self.living():
            record = self.client.get(keys.hold(self.tag, hold.admission.hold_id))
            assert wire.hold(record) == hold

    def live(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("spend", names, amount):
                self.hold(names, 0)
                self.held.insert(0, self.held.pop())
                self.settle(amount)
            case ("hold", names, amount):
                self.hold(names, amount)
            case ("settle", amount):
                self.settle(amount)
            case ("late", names, amount, twice):
                self.late(names, amount, twice=twice)
            case ("read",):
                self.read = self.living()
            case ("cut", names):
                self.cut(names)
            case ("correct", twice):
                self.correct(twice=twice)


def _lives(url: str, history: list[tuple[Any, ...]]) -> None:
    tag = next(_tags)
    with redis.Redis.from_url(url) as client:
        both = Both(client, tag)
        try:
            for step in history:
                both.live(step)
                both.agree()
            while both.held:
                both.settle(7)
            both.cut(NAMES)
            both.correct(twice=True)
            both.agree()
            for name in NAMES:
                assert both.state.accounts[both.key(name)] == Balance(both.settled[name], 0)
        finally:
            for key in client.scan_iter(f"mh:{{{tag}}}:*", count=1000):
                client.delete(key)


SHARED = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@settings(SHARED, max_examples=100)
@given(st.lists(steps, max_size=14))
def test_a_recount_in_valkey_leaves_what_was_settled(
    store_server_url: str, history: list[tuple[Any, ...]]
) -> None:
    _lives(store_server_url, history)


@settings(SHARED, max_examples=60)
@given(st.lists(steps, max_size=14))
def test_a_recount_in_redis_leaves_what_was_settled(
    redis_server_url: str | None, history: list[tuple[Any, ...]]
) -> None:
    if redis_server_url is None:
        pytest.skip("no redis-server on PATH")
    _lives(redis_server_url, history)


def test_a_cut_of_the_largest_amounts_is_exact(store_server_url: str) -> None:
    tag = next(_tags)
    with redis.Redis.from_url(store_server_url) as client:
        both = Both(client, tag)
        both.settled["b0"] = MAX_COUNTER
        both.cut(["b0"])
        both.correct(twice=False)
        both.agree()
        both.settled["b0"] = LARGE
        both.cut(["b0"])
        both.correct(twice=False)
        both.agree()
        assert both.state.accounts[both.key("b0")].posted == LARGE


def test_a_hold_that_grows_while_an_account_is_opened_is_on_it_in_whole(
    store_server_url: str,
) -> None:
    tag = next(_tags)
    with redis.Redis.from_url(store_server_url) as client:
        both = Both(client, tag)
        both.cut(["b1"])
        both.correct(twice=False)
        both.hold({"b0", "b1"}, 5, output=3, wanted=2)
        both.cut(["b0"])
        both.grow(300)
        both.correct(twice=True)
        both.agree()
        assert both.state.accounts[both.key("b0")] == Balance(0, 5 + 3 * 300)
        both.grow(310)
        both.agree()
        both.settle(77)
        both.agree()
        assert both.state.accounts[both.key("b0")] == Balance(77, 0)


def test_a_hold_that_ended_while_an_account_was_opened_counts_in_whole_until_it_is_counted(
    store_server_url: str,
) -> None:
    tag = next(_tags)
    with redis.Redis.from_url(store_server_url) as client:
        both = Both(client, tag)
        both.hold({"b0"}, 50)
        both.cut(["b0"])
        both.settle(7)
        both.correct(twice=False)
        both.agree()
        assert both.state.accounts[both.key("b0")] == Balance(50, 0)
        both.cut(["b0"])
        both.correct(twice=False)
        both.agree()
        assert both.state.accounts[both.key("b0")] == Balance(7, 0)


def test_a_hold_that_another_recount_took_in_is_not_taken_in_twice(store_server_url: str) -> None:
    tag = next(_tags)
    with redis.Redis.from_url(store_server_url) as client:
        both = Both(client, tag)
        both.hold({"b0", "b1"}, 50)
        read = both.living()
        both.cut(["b0"])
        both.correct(twice=False)
        both.read = read
        both.cut(["b1"])
        both.correct(twice=False)
        both.agree()
        assert both.key("b1") not in both.state.accounts
