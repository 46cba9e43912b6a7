"""Which accounts a living hold comes to stand on when they are opened."""

from billing.periods import Window
from billing.usage import ENCODER
from gateway.admin.teams import DEEPEST
from gateway.stores.adoption import due
from gateway.stores.counted import Counted
from policies.budgets import MAX_LEVELS, MAX_STOOD_ON, MONEY, NO_CAP, Account, Hold
from tests.holding import ask
from tests.ledger_events import an_event

WINDOW = Window("w", 0, 2**52)
EVENT = an_event()
SCOPES = [
    ("tenant", EVENT.tenant_id),
    *(("team", team_id) for team_id in EVENT.team_path),
    ("key", EVENT.key_id),
]
PERIODS = 5
EACH = PERIODS + 1  # accounts of one scope: a budget a period, and tokens per day


def hold(stands_on: int) -> Hold:
    accounts = [Account(f"was_{n}", NO_CAP, 0, 2**52, MONEY, "b") for n in range(stands_on)]
    return Hold(100, 1, ask(accounts=tuple(accounts), meta=ENCODER.encode(EVENT)))


def opened(many: int) -> list[Counted]:
    return [
        Counted(f"is_{n}", EVENT.tenant_id, *SCOPES[n % len(SCOPES)], WINDOW, MONEY, n)
        for n in range(many)
    ]


def test_the_longest_path_with_every_budget_it_can_have_is_admitted() -> None:
    assert (1 + DEEPEST + 1) * EACH <= MAX_LEVELS


def test_a_hold_of_the_longest_path_stands_on_all_accounts_that_are_opened_anew() -> None:
    (adoption,) = due(opened(MAX_LEVELS), [hold(MAX_LEVELS)])

    assert sorted(one.key for one in adoption.accounts) == sorted(f"is_{n}" for n in range(64))


def test_what_a_stream_takes_from_now_on_is_bounded_by_the_caps_of_what_was_opened() -> None:
    (adoption,) = due(opened(3), [hold(1)])

    assert {one.key: one.cap for one in adoption.accounts} == {"is_0": 0, "is_1": 1, "is_2": 2}


def test_a_hold_never_stands_on_more_accounts_than_its_record_may_have() -> None:
    (adoption,) = due(opened(5), [hold(MAX_STOOD_ON - 2)])

    assert len(adoption.accounts) == 2
    assert due(opened(5), [hold(MAX_STOOD_ON)]) == []
