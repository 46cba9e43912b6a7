"""Leases of budgets at choice, and a look at those that the store keeps."""

from collections.abc import Mapping

import redis
from hypothesis import strategies as st

from gateway.stores.redis import keys
from policies.accounts import NO_CAP, Account, Balance
from policies.budgets import MAX_COUNTER, MONEY
from policies.holds import Lease
from policies.leases import NEVER, LeaseAsked, TakenBack

FOREVER_MS = 2**52
LARGE = 123_456_789_012_345
LEASE_IDS = ["data-0.w1/0", "data-0.w1/1", "data-1.w2/0"]

_amounts = st.sampled_from([LARGE, 0, 1, 999, MAX_COUNTER]) | st.integers(0, MAX_COUNTER)
_caps = st.sampled_from([MAX_COUNTER, MAX_COUNTER, LARGE, 0]) | st.integers(0, 10**6)


def accounts(tag: str) -> st.SearchStrategy[Account]:
    """Each id is one account's: a worker makes up a new one for another. What is put back unasked
    is of a window that has not ended.
    """
    key = keys.account(tag, "b0", "w")
    asked = st.tuples(_caps, st.sampled_from([FOREVER_MS, FOREVER_MS, FOREVER_MS, 1]))
    return (asked | st.just((NO_CAP, FOREVER_MS))).map(
        lambda pair: Account(key, pair[0], 0, pair[1], MONEY, "b0")
    )


def asked_leases(tag: str) -> st.SearchStrategy[LeaseAsked]:
    return st.builds(
        LeaseAsked,
        st.sampled_from(LEASE_IDS),
        st.sampled_from([0, 1, 30_000]),
        _amounts,
        st.sampled_from([0, 0, 1, 1_000, LARGE]),
        st.integers(1, 5),
        accounts(tag),
    )


def taken_back(tag: str) -> st.SearchStrategy[TakenBack]:
    return st.builds(
        TakenBack,
        st.sampled_from(LEASE_IDS),
        st.just(keys.account(tag, "b0", "w")),
        st.sampled_from([NEVER, NEVER, 0, 1, 60_000]),
    )


def balance_of(fields: Mapping[bytes, bytes]) -> Balance:
    figures = {name: int(fields.get(name.encode(), 0)) for name in Balance.__struct_fields__}
    return Balance(**figures)


def stored_leases(client: redis.Redis, tag: str) -> dict[str, Lease]:
    """What the store lends. AssertionError where an account's sum is not that of its leases."""
    found: dict[str, Lease] = {}
    sums: dict[str, int] = {}
    for member, expiry_ms in client.zrange(keys.leases(tag), 0, -1, withscores=True):
        lease_id, _, key = member.decode().partition(" ")
        amount = int(client.hget(key, f"lease:{lease_id}"))
        found[lease_id] = Lease(key, amount, int(expiry_ms))
        sums[key] = sums.get(key, 0) + amount
    for key in client.scan_iter(f"mh:{{{tag}}}:acct:*", count=1000):
        fields = client.hgetall(key)
        assert int(fields.get(b"leased", 0)) == sums.get(key.decode(), 0)
        leases = [name for name in fields if name.startswith(b"lease:")]
        assert len(leases) == sum(lease.account == key.decode() for lease in found.values())
    return found
