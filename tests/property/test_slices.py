"""Slices near their caps: the script takes what its model says, and no cap is ever passed."""

import itertools
import os
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stores.redis import keys
from policies.budgets import (
    MONEY,
    NO_CAP,
    TOKENS,
    Account,
    Admission,
    Balance,
    Granted,
    Settlement,
    State,
    admit,
    held_on,
    settle,
)
from policies.leases import LeaseAsked, lend
from policies.slices import SliceAsked, take_slice
from tests.property.test_lua_equals_model import FOREVER_MS, SHARED, Settle, Step, agree

NOW_US = 1_000_000
HOLDS = ("req_0", "req_1", "req_2")
NAMES = ("tenant", "team", "key", "tokens")
_tags = (f"s{os.getpid()}x{n}" for n in itertools.count())


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[Step]]:
    """A few sliced holds on shared budgets that can pay some of their slices, and how they end."""
    tag = next(_tags)
    caps = {name: draw(st.sampled_from([NO_CAP, 900, 1_500, 4_001])) for name in NAMES}
    ends = {name: FOREVER_MS - draw(st.integers(0, 2)) for name in NAMES}
    steps: list[Step] = []
    for hold_id in HOLDS:
        accounts = tuple(
            Account(
                keys.account(tag, name, "w"),
                caps[name],
                0,
                ends[name],
                TOKENS if name == "tokens" else MONEY,
                name,
            )
            for name in NAMES[draw(st.integers(0, 3)) :]
        )
        wanted = draw(st.integers(1, 64))
        ask = Admission(
            hold_id=hold_id,
            ttl_ms=30_000,
            input_money=draw(st.integers(0, 200)),
            output_money=draw(st.integers(0, 4)),
            input_tokens=draw(st.integers(0, 50)),
            wanted=wanted,
            least=draw(st.integers(0, wanted)),
            choices=draw(st.integers(1, 3)),
            gates=(),
            slots=(),
            accounts=accounts,
            meta=draw(st.binary(max_size=200)),
        )
        steps.append(ask)
        used = st.builds(Settlement, st.just(hold_id), st.integers(0, 900), st.integers(0, 900))
        steps += [
            LeaseAsked(f"w/{account.id}", 30_000, draw(st.integers(1, 400)), 1, 1, account)
            for account in accounts
            if account.cap != NO_CAP and draw(st.booleans())
        ]
        upto = st.integers(0, 600)
        steps += draw(st.lists(st.builds(SliceAsked, st.just(hold_id), upto), max_size=5))
        steps += draw(st.lists(st.builds(Settle, used), max_size=1))
    return tag, draw(st.permutations(steps))


@settings(SHARED, max_examples=150)
@given(streams())
def test_slices_near_a_cap_end_alike_in_the_store_and_in_the_model(
    store_server_url: str, history: tuple[str, list[Step]]
) -> None:
    tag, steps = history
    agree(store_server_url, tag, [[step] for step in steps])


@given(streams())
def test_no_slice_passes_a_cap_and_each_is_on_every_account_or_on_none(
    history: tuple[str, list[Step]],
) -> None:
    state, _ = played(history[1])
    for hold in state.holds.values():
        assert hold is not None
        for account in hold.admission.accounts:
            balance = state.accounts[account.key]
            assert (
                account.cap == NO_CAP
                or balance.posted + balance.held + balance.leased <= account.cap
            )


def played(steps: Sequence[Step]) -> tuple[State, dict[str, int]]:
    """The state after these steps, checked at each; settlements use no more than was granted."""
    state, grants = State(), dict[str, int]()
    for step in steps:
        match step:
            case Admission():
                state, answer = admit(state, step, NOW_US)
                if isinstance(answer, Granted):
                    grants.setdefault(step.hold_id, answer.output_tokens)
            case SliceAsked(hold_id, upto):
                state, taken = take_slice(state, step)
                if taken is not None:
                    assert grants[hold_id] <= taken.grant <= max(upto, grants[hold_id])
                    assert (taken.grant >= upto) == (taken.blocked == -1)
                    grants[hold_id] = taken.grant
            case Settle(settlement):
                hold = state.holds.get(settlement.hold_id)
                if hold is not None:
                    ask = hold.admission
                    money = ask.input_money + ask.choices * ask.output_money * hold.grant
                    spent = Settlement(ask.hold_id, min(settlement.money, money), 0)
                    state, _ = settle(state, spent, NOW_US)
            case LeaseAsked():
                state, _ = lend(state, step, NOW_US)
            case _:
                raise AssertionError(step)
        conserves(state)
    return state, grants


def conserves(state: State) -> None:
    """What is held is the sum of the holds, each with its grant as it is now (L1, L3)."""
    held = dict.fromkeys(state.accounts, 0)
    for hold in state.holds.values():
        if hold is not None:
            for account in hold.admission.accounts:
                held[account.key] += held_on(account, hold.admission, hold.grant)
    for key, expected in held.items():
        assert state.accounts.get(key, Balance()).held == expected
