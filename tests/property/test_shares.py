"""share.lua and its model agree on every history: what workers have, what teams have cost."""

import itertools

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.stores.redis import backend_slots, keys
from gateway.stores.redis.scripts import SHARE
from policies.fair_queue import MOST_WEIGHT, charged
from policies.slot_leases import Crew, Holder, SlotsAsked, share, slack

_TAGS = (f"t{number}" for number in itertools.count())
_weights = st.sampled_from([1, 1, 2, 7, 999, MOST_WEIGHT])
_counters = (
    st.sampled_from([0, 1, 2**50])
    | st.builds(lambda weight, off: slack(weight) + off, _weights, st.integers(-1, 1))
    | st.integers(0, 10**8)
)
_teams = st.sampled_from(["team_a", "team_b", "team_c"])
_heads = st.tuples(st.integers(8, 9), _counters, st.sampled_from([0, 49, 50, 51, 900]), _teams,
                   _weights.map(slack))  # fmt: skip
_charges = st.builds(charged, st.integers(-5_000, 10**6), _weights)
_floors = st.tuples(st.integers(1, 9), _counters)
_asks = st.builds(
    SlotsAsked,
    st.just("bk_1"),
    st.sampled_from(["w1", "w2", "w3", "w4"]),
    st.sampled_from([0, 1, 60_000, 60_000, 60_000]),
    st.integers(1, 12),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 4),
    st.integers(0, 40),
    st.lists(_heads, max_size=4).map(tuple),
    st.lists(_floors, max_size=2).map(tuple),
    st.lists(
        st.tuples(st.integers(7, 9), _teams, _charges), max_size=3
    ).map(tuple),
)  # fmt: skip


_histories = st.lists(_asks, min_size=1, max_size=12)
SHARED = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@settings(SHARED, max_examples=150)
@given(history=_histories)
def test_script_and_model_agree(store_server_url: str, history: list[SlotsAsked]) -> None:
    _agree(store_server_url, history)


@settings(SHARED, max_examples=75)
@given(history=_histories)
def test_script_and_model_agree_on_redis(
    redis_server_url: str | None, history: list[SlotsAsked]
) -> None:
    if redis_server_url is None:
        pytest.skip("needs a redis-server on PATH")
    _agree(redis_server_url, history)


def _agree(url: str, history: list[SlotsAsked]) -> None:
    with redis.Redis.from_url(url) as client:
        tag, crew = next(_TAGS), Crew()
        for asked in history:
            args = backend_slots.share_args(asked)
            now_us, answer = client.eval(SHARE.text, 1, keys.crew(tag), *args)
            crew, expected = share(crew, asked, now_us)

            assert backend_slots.shared(asked, now_us, answer) == expected
            assert _stored(client, tag) == crew
        client.delete(*client.scan_iter(f"{keys.crew(tag)}*", count=1000), "none")


def _stored(client: redis.Redis, tag: str) -> Crew:
    name = f"{keys.crew(tag)}:bk_1"
    holders = {}
    for worker, packed in client.hgetall(name).items():
        *figures, heads = msgspec.msgpack.decode(packed)
        holders[worker.decode()] = Holder(*figures, tuple(map(tuple, heads)))
    counters = {}
    for key in client.scan_iter(f"{name}:line:*", count=1000):
        priority, team = key.decode().removeprefix(f"{name}:line:").split(":")
        at, seen_ms = client.hmget(key, "at", "seen_ms")
        counters[(int(priority), team)] = (int(at), int(seen_ms))
    floors = {int(priority): int(at) for priority, at in client.hgetall(f"{name}:floors").items()}
    return Crew(holders, counters, floors)
