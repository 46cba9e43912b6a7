"""The scripts do what their model says: for any history the same answers and the same state."""

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.stores.redis import keys, wire
from gateway.stores.redis.scripts import (
    ADMIT,
    EXTEND,
    KEEP,
    LEND,
    RELEASE,
    SETTLE,
    SLICE,
    TAKE_BACK,
    Script,
)
from policies import budgets, idempotency
from policies.budgets import (
    MAX_COUNTER,
    MAX_TOKENS,
    MAX_UNIT_PRICE,
    MONEY,
    NO_CAP,
    TOKENS,
    Account,
    Admission,
    Balance,
    Hold,
    Reaping,
    Settlement,
    State,
)
from policies.idempotency import Keeping, Ticket, Tickets
from policies.leases import LeaseAsked, TakenBack, lend, take_back
from policies.limits import MAX_DEBT_US, Gate, Slot
from policies.slices import SliceAsked, take_slice
from tests.lending import LEASE_IDS, asked_leases, balance_of, stored_leases, taken_back
from tests.ticketing import as_stored, stored_tickets

LARGE = 123_456_789_012_345  # 123,456.789012345 units in nanos: where text formats begin to round
FOREVER_MS = 2**52
HOUR_MS = 3_600_000
_tags = (f"p{os.getpid()}x{n}" for n in itertools.count())


class Settle(msgspec.Struct, frozen=True):
    settlement: Settlement


class Release(msgspec.Struct, frozen=True):
    hold_id: str
    corrections: tuple[tuple[str, int], ...]


class Extend(msgspec.Struct, frozen=True):
    hold_id: str
    ttl_ms: int


Step = Admission | Settle | Release | Extend | SliceAsked | Keeping | LeaseAsked | TakenBack

History = tuple[str, list[list[Step]], int]
HOLD_IDS = [f"req_{n}" for n in range(6)]
amounts = st.sampled_from(
    [LARGE, 0, 1, 999, 10**6, LARGE - 1, MAX_COUNTER // 2, MAX_COUNTER - 1, MAX_COUNTER]
) | (st.integers(0, MAX_COUNTER))
small = st.integers(0, 2000)
tokens = st.sampled_from([0, 1, 64, 1024, 10**6, MAX_TOKENS]) | small
deltas = st.sampled_from([-(10**9), -1, 0, 1, 500_000, 10**9, MAX_DEBT_US, -MAX_DEBT_US])
ttls = st.sampled_from([0, 1, 5, 30_000])
advances = st.sampled_from([0, 1, 700, 10**6, 10**9, MAX_DEBT_US, 2**53])
bursts = st.sampled_from([10**9, MAX_DEBT_US, 10**6, 700, 0])
often = st.sampled_from([NO_CAP, MAX_COUNTER, LARGE])
caps = st.one_of(often, often, amounts, small)


def tickets(tag: str) -> st.SearchStrategy[Ticket | None]:
    """Few enough that requests come with each other's."""
    ticket = st.builds(
        Ticket,
        st.just(keys.tickets(tag, "key_1")),
        st.sampled_from(["1" * 32, "2" * 32]),
        st.sampled_from(["a" * 32, "a" * 32, "b" * 32]),
        st.sampled_from([HOUR_MS, HOUR_MS, HOUR_MS, 0, 1, 5]),
        st.sampled_from([9, 9, 2, 1]),
    )
    return st.none() | ticket


def keepings(tag: str) -> st.SearchStrategy[Keeping]:
    return st.builds(
        Keeping,
        st.just(keys.tickets(tag, "key_1")),
        st.sampled_from(["1" * 32, "2" * 32]),
        st.sampled_from(HOLD_IDS),
        st.sampled_from([HOUR_MS, HOUR_MS // 2, 2 * HOUR_MS, 1]),
        st.sampled_from([10**6, 1300, 700, 512, 0]),
        st.binary(max_size=200),
    )


def corrections(tag: str) -> st.SearchStrategy[tuple[tuple[str, int], ...]]:
    gate_keys = [keys.gate(tag, "lim", kind) for kind in ("rpm", "tpm")]
    each = st.tuples(st.sampled_from(gate_keys), deltas)
    return st.lists(each, max_size=2, unique_by=lambda pair: pair[0]).map(tuple)


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int]:
    """Mostly now; sometimes over, not begun, or about to end while the history runs."""
    if draw(st.integers(0, 9)) > 0:
        return draw(st.sampled_from([(0, FOREVER_MS), (0, FOREVER_MS + 1)]))
    now_ms = time.time_ns() // 1_000_000
    about_to_end = (0, now_ms + draw(st.integers(0, 20)))
    return draw(st.sampled_from([(0, now_ms - 1000), (now_ms + 60_000, FOREVER_MS), about_to_end]))


@st.composite
def admissions(draw: st.DrawFn, tag: str, hold_id: str) -> Admission:
    wanted = draw(tokens)
    price, choices = (
        draw(st.sampled_from([1, 0, 15_000, 15_001, MAX_UNIT_PRICE])),
        draw(st.integers(1, 3)),
    )
    least = min(draw(tokens), wanted, MAX_COUNTER // max(1, 2 * price * choices))
    money = min(draw(st.one_of(small, amounts)), MAX_COUNTER - choices * least * price)
    accounts = []
    for n in draw(st.lists(st.integers(0, 3), unique=True, max_size=4)):
        start_ms, end_ms = draw(windows())
        unit = TOKENS if n == 3 else MONEY
        key = keys.account(tag, f"b{n}", "w")
        since_ms = draw(st.sampled_from([0, 0, 0, 0, 0, 1, FOREVER_MS]))
        accounts.append(Account(key, draw(caps), start_ms, end_ms, unit, f"b{n}", since_ms))
    gates = [
        Gate(keys.gate(tag, "lim", kind), draw(advances), draw(bursts), "lim", kind)
        for kind in draw(st.lists(st.sampled_from(["rpm", "tpm"]), unique=True))
    ]
    slots = [
        Slot(keys.slots(tag, name), draw(st.sampled_from([9, 2, 1, 0])), name)
        for name in draw(st.lists(st.sampled_from(["s0", "s1"]), unique=True))
    ]
    return Admission(
        hold_id=hold_id,
        ttl_ms=draw(ttls),
        input_money=money,
        output_money=price,
        input_tokens=draw(tokens),
        wanted=wanted,
        least=least,
        choices=choices,
        gates=tuple(gates),
        slots=tuple(slots),
        accounts=tuple(accounts),
        meta=draw(st.binary(max_size=20)),
        ticket=draw(tickets(tag)),
        firm=draw(st.booleans()),
    )


def reapings(tag: str) -> st.SearchStrategy[Reaping | None]:
    """Mostly an owner settles; sometimes a reaper, too early or in time, with or without lease."""
    reaping = st.builds(
        Reaping,
        st.sampled_from([0, 1, 30_000]),
        st.just(keys.lease(f"reap:{{{tag}}}")),
        st.sampled_from(["mine", "mine", "another's"]),
    )
    return st.none() | st.none() | reaping


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Batches of one kind of step each, as the client sends them. An id is always asked alike."""
    tag = next(_tags)
    asks = {hold_id: draw(admissions(tag, hold_id)) for hold_id in HOLD_IDS}
    hold_ids = st.sampled_from(HOLD_IDS)
    settlements = st.builds(
        Settlement,
        hold_ids,
        amounts,
        tokens,
        corrections(tag),
        st.none() | st.binary(min_size=1),
        reapings(tag),
        st.booleans(),
    )
    admit = st.lists(hold_ids.map(asks.__getitem__), min_size=1, max_size=6)
    settlements = st.builds(
        partial(unheld, asks),
        settlements,
        st.lists(st.sampled_from(["", *LEASE_IDS]), max_size=4),
        is_unheld=st.sampled_from([False, False, True]),
    )
    settle = st.lists(st.builds(Settle, settlements), min_size=1, max_size=4)
    release = st.lists(st.builds(Release, hold_ids, corrections(tag)), min_size=1, max_size=1)
    extend = st.lists(st.builds(Extend, hold_ids, ttls), min_size=1, max_size=3)
    grow = st.lists(st.builds(SliceAsked, hold_ids, tokens), min_size=1, max_size=4)
    keep = st.lists(keepings(tag), min_size=1, max_size=4)
    borrow = st.lists(asked_leases(tag), min_size=1, max_size=4)
    back = st.lists(taken_back(tag), min_size=1, max_size=2)
    batches: list[st.SearchStrategy[list[Step]]] = [admit, settle, release, extend, grow, keep]
    batches += [borrow, back]
    kinds = st.sampled_from([0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 4, 4, 5, 5, 6, 6, 6, 7])
    batch = kinds.flatmap(batches.__getitem__)
    since_ms = draw(st.sampled_from([0, 0, 0, 1]))
    return tag, draw(st.lists(batch, min_size=1, max_size=12)), since_ms


def unheld(
    asks: Mapping[str, Admission], settlement: Settlement, leases: list[str], *, is_unheld: bool
) -> Settlement:
    """As it would be sent had the store not answered to the request."""
    if not is_unheld:
        return settlement
    accounts = asks[settlement.hold_id].accounts
    return msgspec.structs.replace(
        settlement, reaping=None, unheld=accounts, leases=tuple(leases[: len(accounts)])
    )


def in_store(client: redis.Redis, tag: str, batch: Sequence[Step]) -> tuple[int, list[Any]]:
    """Send one batch as the client would: when it was served, and the answers."""
    script, args = _packed(batch)
    names = [keys.holds(tag), keys.journal(tag)][: 2 if script is SETTLE else 1]
    if script in (LEND, TAKE_BACK):
        names = [keys.leases(tag)]
    if script in (ADMIT, SLICE, LEND):
        names, args = [names[0], keys.epoch(tag)], [client.get(keys.epoch(tag)), *args]
    if script is KEEP:
        names = list(keys.answers(tag))
    now_us, *answers = client.eval(script.text, len(names), *names, *args)
    return now_us, answers


def _packed(batch: Sequence[Step]) -> tuple[Script, list[bytes]]:
    args: list[bytes] = []
    script = ADMIT
    for step in batch:
        match step:
            case Admission():
                args += wire.admission_args(step)
            case Settle(settlement):
                script = SETTLE
                args += wire.settlement_args(settlement)
            case Release(hold_id, given_back):
                script = RELEASE
                args += wire.release_args(hold_id, given_back)
            case Extend(hold_id, ttl_ms):
                script = EXTEND
                args += wire.extension_args(hold_id, ttl_ms)
            case SliceAsked():
                script = SLICE
                args += wire.slice_args(step)
            case Keeping():
                script = KEEP
                args += wire.keeping_args(step)
            case LeaseAsked():
                script = LEND
                args += wire.lease_args(step)
            case TakenBack():
                script = TAKE_BACK
                args += wire.back_args(step)
    return script, args


def in_model(state: State, step: Step, now_us: int) -> tuple[State, Any]:
    match step:
        case Admission():
            return budgets.admit(state, step, now_us)
        case Settle(settlement):
            return budgets.settle(state, settlement, now_us)
        case Release(hold_id, given_back):
            return budgets.release(state, hold_id, given_back, now_us)
        case Extend(hold_id, ttl_ms):
            state, absent = budgets.extend(state, [hold_id], ttl_ms, now_us)
            return state, not absent
        case SliceAsked():
            return take_slice(state, step)
        case Keeping():
            tickets, kept = idempotency.keep(state.tickets, step, now_us // 1000)
            return msgspec.structs.replace(state, tickets=tickets), kept
        case LeaseAsked():
            return lend(state, step, now_us)
        case TakenBack():
            return take_back(state, step, now_us)


DECODE = {Admission: wire.admitted, SliceAsked: wire.sliced, LeaseAsked: wire.lent}


def stored(client: redis.Redis, tag: str) -> State:
    """Everything the store keeps for this tag, as the model would keep it."""
    prefix = f"mh:{{{tag}}}:"
    gates: dict[str, int] = {}
    slots: dict[str, dict[str, int]] = {}
    accounts: dict[str, Balance] = {}
    holds: dict[str, Hold | None] = {}
    posted: set[str] = set()
    for key in sorted(raw.decode() for raw in client.scan_iter(f"{prefix}*", count=1000)):
        kind = key.removeprefix(prefix).split(":")[0]
        if kind == "gate":
            gates[key] = int(client.get(key))
        elif kind == "slots":
            slots[key] = _members(client, key)
        elif kind == "acct":
            accounts[key] = balance_of(client.hgetall(key))
        elif kind == "hold":
            holds[key.removeprefix(f"{prefix}hold:")] = wire.hold(client.get(key))
        elif kind == "posted":
            posted.add(key.removeprefix(f"{prefix}posted:"))
    entries = client.xrange(keys.journal(tag))
    return State(
        gates=gates,
        slots=slots,
        accounts=accounts,
        holds=holds,
        expiries_ms=_members(client, keys.holds(tag)),
        journal=tuple((fields[b"e"], fields[b"h"] == b"1") for _, fields in entries),
        posted=frozenset(posted),
        lent=stored_leases(client, tag),
    )


def _members(client: redis.Redis, key: str) -> dict[str, int]:
    return {
        member.decode(): int(score) for member, score in client.zrange(key, 0, -1, withscores=True)
    }


def without_empty(state: State) -> State:
    """A set nobody is in does not exist in the store. Leases are not the scripts' to change."""
    return msgspec.structs.replace(
        state,
        slots={key: members for key, members in state.slots.items() if members},
        leases={},
        tickets=Tickets(),  # these are looked at apart
        since_ms=0,
    )


def agree(url: str, tag: str, history: Sequence[Sequence[Step]], since_ms: int = 0) -> None:
    lease = keys.lease(f"reap:{{{tag}}}")
    state = State(leases={lease: "mine"}, since_ms=since_ms)
    with redis.Redis.from_url(url) as client:
        client.set(lease, "mine")
        client.set(keys.epoch(tag), f"open:1:{since_ms}:abc")
        try:
            for batch in history:
                now_us, answers = in_store(client, tag, batch)
                for step, answer in zip(batch, answers, strict=True):
                    state, expected = in_model(state, step, now_us)
                    decode = DECODE.get(type(step), wire.found)
                    assert decode(step, now_us, answer) == expected, step
                assert stored(client, tag) == without_empty(state)
                assert as_stored(stored_tickets(client, tag)) == as_stored(state.tickets)
        finally:
            client.delete(lease)
            for key in client.scan_iter(f"mh:{{{tag}}}:*", count=1000):
                client.delete(key)


SHARED = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@settings(SHARED, max_examples=150)
@given(histories())
def test_any_history_ends_alike_in_valkey_and_in_the_model(
    store_server_url: str, history: History
) -> None:
    agree(store_server_url, *history)


@settings(SHARED, max_examples=100)
@given(histories())
def test_any_history_ends_alike_in_redis_and_in_the_model(
    redis_server_url: str | None, history: History
) -> None:
    if redis_server_url is None:
        pytest.skip("no redis-server on PATH")
    agree(redis_server_url, *history)


@pytest.mark.long
@settings(SHARED, max_examples=5_000)
@given(histories())
def test_thousands_of_histories_end_alike(store_server_url: str, history: History) -> None:
    agree(store_server_url, *history)
