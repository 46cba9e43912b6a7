"""Whatever is held and settled around a recount, and however often it is run again: afterwards an
account shows what was settled, and the scripts of it do what their model says.
"""

import itertools
import os
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.stores.redis import keys, wire
from gateway.stores.redis.scripts import ADMIT, CORRECT, CUT, SETTLE
from policies import budgets, recount
from policies.budgets import MAX_COUNTER, MONEY, NO_CAP, Account, Admission, Balance, State
from policies.recount import Correction

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
        self.pending: tuple[str, list[Correction]] | None = None
        self.numbers = itertools.count()
        client.set(keys.epoch(tag), EPOCH)

    def key(self, name: str) -> str:
        return keys.account(self.tag, name, "w")

    def hold(self, names: set[str], amount: int) -> None:
        """On all accounts that are open; the request belongs to others too."""
        attached = tuple(
            Account(self.key(name), NO_CAP, 0, FOREVER_MS, MONEY, name)
            for name in sorted(names)
            if self.key(name) in self.state.accounts
        )
        ask = Admission(
            f"req_{next(self.numbers)}", 30_000, amount, 0, 0, 0, 0, 1, (), (), attached
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

    def cut(self, names: list[str]) -> None:
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
        self.pending = token, missing

    def correct(self, *, twice: bool) -> None:
        if self.pending is None:
            return
        token, corrections = self.pending
        packed = [msgspec.msgpack.encode(one) for one in corrections]
        for _ in range(1 + twice):
            done = self.client.eval(CORRECT.text, 1, keys.cut(self.tag), token, *packed)
            self.state, expected = recount.correct(self.state, token, corrections)
            assert bool(done) == expected

    def agree(self) -> None:
        for name in NAMES:
            found = {k.decode(): int(v) for k, v in self.client.hgetall(self.key(name)).items()}
            expected = self.state.accounts.get(self.key(name))
            assert (Balance(**found) if found else None) == expected

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
