"""The laws of holds, on the model (the scripts equal it): nothing leaks, nothing exceeds a cap."""

import random

from hypothesis import given
from hypothesis import strategies as st

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
    release,
    settle,
)
from policies.limits import Slot

NAMES = ("tenant", "team", "key", "tokens")
CAPS = st.sampled_from([123_456_789_012_345, 10**6, 5_000, 700])
NOW_US = 1_000_000


@st.composite
def asks(draw: st.DrawFn, caps: dict[str, int], n: int) -> Admission:
    levels = NAMES[draw(st.integers(0, 2)) :]  # a path: some level and all above it
    wanted = draw(st.integers(0, 500))
    return Admission(
        hold_id=f"req_{n}",
        ttl_ms=30_000,
        input_money=draw(st.integers(0, 2_000)),
        output_money=draw(st.sampled_from([0, 1, 7, 15_000])),
        input_tokens=draw(st.integers(0, 100)),
        wanted=wanted,
        least=draw(st.integers(0, wanted)),
        choices=draw(st.integers(1, 3)),
        gates=(),
        slots=(Slot("slots", draw(st.integers(1, 5)), "slots"),),
        accounts=tuple(
            Account(name, caps[name], 0, 10**9, TOKENS if name == "tokens" else MONEY, name)
            for name in levels
        ),
    )


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[Admission, str, int]]:
    """Requests, how each ends (the last ones may not), and the share of its hold it really cost."""
    caps = {name: draw(CAPS) for name in NAMES}
    ends = st.sampled_from(["settled", "released", "outstanding"])
    return [
        (draw(asks(caps, n)), draw(ends), draw(st.integers(0, 100)))
        for n in range(draw(st.integers(1, 12)))
    ]


@given(stories(), st.randoms(use_true_random=False))
def test_granted_equals_settled_plus_released_plus_outstanding_and_no_cap_is_passed(
    story: list[tuple[Admission, str, int]], dice: random.Random
) -> None:
    state, granted, ended, posted = State(), {}, set(), dict.fromkeys(NAMES, 0)
    pending = [*story, *story]  # each appears twice: first it asks, then it ends
    dice.shuffle(pending)
    for ask, end, share in pending:
        if ask.hold_id not in granted:
            state, answer = admit(state, ask, NOW_US)
            grant = answer.output_tokens if isinstance(answer, Granted) else None
            granted[ask.hold_id] = (ask, grant)
        elif granted[ask.hold_id][1] is not None and end != "outstanding":
            grant = granted[ask.hold_id][1]
            ended.add(ask.hold_id)
            if end == "released":
                state, found = release(state, ask.hold_id, (), NOW_US)
            else:
                money = (ask.input_money + ask.choices * grant * ask.output_money) * share // 100
                tokens = (ask.input_tokens + ask.choices * grant) * share // 100
                state, found = settle(state, Settlement(ask.hold_id, money, tokens), NOW_US)
                for account in ask.accounts:
                    posted[account.key] += money if account.unit == MONEY else tokens
            assert found
        within_caps(state, story)
    outstanding = dict.fromkeys(NAMES, 0)
    for ask, grant in granted.values():
        if grant is not None and ask.hold_id not in ended:
            for account in ask.accounts:
                outstanding[account.key] += held_on(account, ask, grant)
    for name in NAMES:
        balance = state.accounts.get(name, Balance())
        assert (balance.posted, balance.held) == (posted[name], outstanding[name])


def within_caps(state: State, story: list[tuple[Admission, str, int]]) -> None:
    for ask, _, _ in story:
        for account in ask.accounts:
            balance = state.accounts.get(account.key, Balance())
            assert account.cap == NO_CAP or balance.posted + balance.held <= account.cap
        for slot in ask.slots:
            assert len(state.slots.get(slot.key, {})) <= 5


@given(stories())
def test_a_hold_is_on_every_level_of_its_path_or_on_none(
    story: list[tuple[Admission, str, int]],
) -> None:
    state = State()
    for ask, _, _ in story:
        before = state
        state, answer = admit(state, ask, NOW_US)
        if not isinstance(answer, Granted):
            assert state == before
            continue
        for account in ask.accounts:
            was = before.accounts.get(account.key, Balance()).held
            grown = state.accounts[account.key].held - was
            assert grown == held_on(account, ask, answer.output_tokens)
        assert ask.hold_id in state.slots["slots"]
