"""Holds put back by the script are those that the model puts back, and end as these end."""

import itertools
import os
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.stores.redis import keys, wire
from gateway.stores.redis.scripts import RELEASE, RESTORE, SETTLE
from policies import budgets
from policies.accounts import MONEY, NO_CAP, TOKENS, Account, Balance
from policies.budgets import MAX_TOKENS, Admission, State
from policies.rebuild import held, restore

LARGE = 123_456_789_012_345
CLOSED = "closed:3:5:abc"
_tags = (f"b{os.getpid()}x{n}" for n in itertools.count())

ids = st.sampled_from(["r0", "r1", "r2", "r3"])
amounts = st.sampled_from([0, 1, LARGE]) | st.integers(0, LARGE)
tokens = st.sampled_from([0, 7, MAX_TOKENS]) | st.integers(0, MAX_TOKENS)
steps = st.one_of(
    st.tuples(st.just("restore"), ids, amounts, tokens, st.sets(st.integers(0, 3))),
    st.tuples(st.just("settle"), ids, amounts, tokens),
    st.tuples(st.just("release"), ids),
)


def _ask(tag: str, hold_id: str, money: int, count: int, places: set[int]) -> Admission:
    accounts = tuple(
        Account(keys.account(tag, f"b{n}", "w"), NO_CAP, 0, 2**52, TOKENS if n == 3 else MONEY, "b")
        for n in sorted(places)
    )
    return Admission(hold_id, 30_000, money, 0, count, 0, 0, 1, (), (), accounts, b"meta", "data-0")


def _step(client: redis.Redis, tag: str, state: State, step: tuple[Any, ...]) -> State:
    index = keys.holds(tag)
    match step:
        case ("restore", hold_id, money, count, places):
            ask = _ask(tag, hold_id, money, count, places)
            names = (index, keys.epoch(tag), CLOSED)
            now_us, answer = client.eval(RESTORE.text, 2, *names, *wire.admission_args(ask))
            state, expected = restore(state, ask, now_us)
        case ("settle", hold_id, money, count):
            done = budgets.Settlement(hold_id, money, count, (), b"x")
            names = (index, keys.journal(tag))
            now_us, answer = client.eval(SETTLE.text, 2, *names, *wire.settlement_args(done))
            state, expected = budgets.settle(state, done, now_us)
        case (_, hold_id):
            packed = wire.release_args(hold_id, ())
            now_us, answer = client.eval(RELEASE.text, 1, index, *packed)
            state, expected = budgets.release(state, hold_id, (), now_us)
    assert (answer == 1) == expected, step
    return state


def _agree(client: redis.Redis, tag: str, state: State) -> None:
    living = {id_: hold for id_, hold in state.holds.items() if hold is not None}
    for hold_id, hold in living.items():
        assert wire.hold(client.get(keys.hold(tag, hold_id))) == hold
    scores = client.zrange(keys.holds(tag), 0, -1, withscores=True)
    assert {id_.decode(): int(at) for id_, at in scores} == state.expiries_ms
    for key, balance in state.accounts.items():
        found = {name.decode(): int(value) for name, value in client.hgetall(key).items()}
        assert Balance(**found) == balance
    sums = held(living.values())
    assert {key: one.held for key, one in state.accounts.items() if one.held} == {
        key: amount for key, amount in sums.items() if amount
    }


def _lives(url: str, history: list[tuple[Any, ...]]) -> None:
    tag, state = next(_tags), State()
    with redis.Redis.from_url(url) as client:
        client.set(keys.epoch(tag), CLOSED)
        try:
            for step in history:
                state = _step(client, tag, state, step)
                _agree(client, tag, state)
        finally:
            for key in client.scan_iter(f"mh:{{{tag}}}:*", count=1000):
                client.delete(key)


SHARED = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@settings(SHARED, max_examples=80)
@given(st.lists(steps, max_size=10))
def test_holds_put_back_in_valkey_are_those_of_the_model(
    store_server_url: str, history: list[tuple[Any, ...]]
) -> None:
    _lives(store_server_url, history)


@settings(SHARED, max_examples=50)
@given(st.lists(steps, max_size=10))
def test_holds_put_back_in_redis_are_those_of_the_model(
    redis_server_url: str | None, history: list[tuple[Any, ...]]
) -> None:
    if redis_server_url is None:
        pytest.skip("no redis-server on PATH")
    _lives(redis_server_url, history)


def test_nothing_is_put_back_under_another_epoch(store_server_url: str) -> None:
    tag = next(_tags)
    ask = _ask(tag, "r0", 1, 1, {0})
    with redis.Redis.from_url(store_server_url) as client:
        client.set(keys.epoch(tag), "open:3:5:abc")
        names = (keys.holds(tag), keys.epoch(tag), CLOSED)
        with pytest.raises(redis.ResponseError, match="EPOCH open:3:5:abc"):
            client.eval(RESTORE.text, 2, *names, *wire.admission_args(ask))
        assert client.keys(f"mh:{{{tag}}}:*") == [keys.epoch(tag).encode()]
        client.delete(keys.epoch(tag))
