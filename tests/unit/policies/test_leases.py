"""The model of lend.lua and take_back.lua: how large a lease is, and that it never breaks a cap."""

from hypothesis import given
from hypothesis import strategies as st

from policies.accounts import MONEY, NO_CAP, Account, Balance
from policies.budgets import admit, settle
from policies.holds import Admission, Granted, Lease, Refused, Settlement, State
from policies.leases import Burn, LeaseAsked, TakenBack, lend, repaid, size, take_back

NOW_US = 1_000_000
BUDGET = Account("b", 1_000, 0, 10**9, MONEY, "b")


def asked(lease_id: str = "w/0", wanted: int = 100, **changes: int) -> LeaseAsked:
    given_ = {"ttl_ms": 30_000, "least": 1, "workers": 1} | changes
    return LeaseAsked(lease_id, wanted=wanted, account=BUDGET, **given_)


def used(posted: int = 0, held: int = 0) -> State:
    return State(accounts={"b": Balance(posted, held)})


def admission(money: int, hold_id: str = "req_1", *, firm: bool = False) -> Admission:
    return Admission(hold_id, 30_000, money, 0, 0, 0, 0, 1, (), (), (BUDGET,), b"", "", None, firm)


def test_a_lease_is_a_worker_s_part_of_a_quarter_of_what_is_left() -> None:
    assert size(1_000, 0, 900, 1) == 250
    assert size(1_000, 0, 900, 2) == 125
    assert size(1_000, 200, 900, 2) == 50
    assert size(1_000, 0, 30, 2) == 30
    assert size(-5, 0, 30, 2) == 0


def test_what_is_lent_is_taken_out_of_what_is_left_and_comes_back() -> None:
    state, lent = lend(used(posted=200), asked(), NOW_US)
    assert lent.amount == 100
    assert state.accounts == {"b": Balance(200, 0, 100)}
    assert state.lent == {"w/0": Lease("b", 100, 31_000)}

    again, same = lend(state, asked(), NOW_US + 1_000_000)
    assert same.amount == 100
    assert again.lent["w/0"].expiry_ms == 32_000

    state, done = take_back(again, TakenBack("w/0", "b"), NOW_US)
    assert done
    assert state == used(posted=200)


def test_too_little_or_nothing_known_is_not_lent_and_a_lease_is_never_made_smaller() -> None:
    assert lend(used(), asked(least=300, wanted=900), NOW_US)[1].amount == 0
    assert lend(State(), asked(), NOW_US)[1].amount == 0
    state, _ = lend(used(), asked(wanted=200), NOW_US)
    state, lent = lend(state, asked(wanted=10), NOW_US)
    assert lent.amount == 200


def test_nothing_is_lent_outside_the_window() -> None:
    assert lend(used(), asked(), 10**12)[1].amount == 0


def test_a_lease_is_put_back_unasked_on_an_account_without_cap() -> None:
    free = Account("b", NO_CAP, 0, 10**9, MONEY, "b")
    state, lent = lend(State(), LeaseAsked("w/0", 60_000, 70, 0, 1, free), NOW_US)
    assert lent.amount == 70
    assert state.accounts == {"b": Balance(0, 0, 70)}


def test_an_overdue_lease_ends_only_when_it_is_overdue() -> None:
    state, _ = lend(used(), asked(), NOW_US)
    assert take_back(state, TakenBack("w/0", "b", 5_000), 35_999_000) == (state, False)
    assert take_back(state, TakenBack("w/0", "b", 5_000), 36_000_000)[1]


def test_a_request_that_a_lease_narrows_is_told_so_and_gets_the_rest_where_it_insists() -> None:
    state, _ = lend(used(), asked(wanted=250), NOW_US)
    assert admit(state, admission(900), NOW_US) == (state, Refused("leased", 0, 0, 1_000))
    _, firm = admit(state, admission(900, firm=True), NOW_US)
    assert isinstance(firm, Refused)
    assert firm.reason == "budget"
    assert isinstance(admit(state, admission(750), NOW_US)[1], Granted)
    beyond = admit(state, admission(1_001), NOW_US)[1]
    assert isinstance(beyond, Refused)
    assert beyond.reason == "budget"


def test_what_a_lease_paid_for_is_posted_in_its_place_once() -> None:
    state, _ = lend(used(), asked(), NOW_US)
    done = Settlement("req_1", 30, 0, unheld=(BUDGET,), leases=("w/0",))
    for _ in range(2):
        state, _ = settle(state, done, NOW_US)
        assert state.accounts == {"b": Balance(30, 0, 70)}
    overrun = Settlement("req_2", 90, 0, unheld=(BUDGET,), leases=("w/0",))
    assert repaid(state, overrun).accounts == {"b": Balance(30, 0, 0)}
    assert settle(state, overrun, NOW_US)[0].accounts == {"b": Balance(120, 0, 0)}


def test_what_was_held_of_late_says_how_much_is_asked_for() -> None:
    burn = Burn().after_a_second(600, 3)
    assert (burn.typical, burn.wanted) == (200, 800)
    for _ in range(59):
        burn = burn.after_a_second(600, 3)
    assert 198 <= burn.typical <= 200
    assert 20_000 < burn.wanted < 36_000
    for _ in range(2_000):
        burn = burn.after_a_second(0, 0)
    assert (burn.typical, burn.wanted) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 500)), max_size=40))
def test_posted_held_and_leased_never_pass_the_cap(steps: list[tuple[int, int, int]]) -> None:
    """Requests through the store and from leases, in any order; a lease pays for what it can."""
    state, numbers, unsettled = used(), iter(range(1_000)), []
    for kind, n, amount in steps:
        lease_id = f"w/{n}"
        if kind == 0:
            state, _ = lend(state, asked(lease_id, wanted=amount, workers=1 + n), NOW_US)
        elif kind == 1:
            state, _ = admit(state, admission(amount, f"r{next(numbers)}"), NOW_US)
        elif kind == 2:
            left = state.lent[lease_id].amount if lease_id in state.lent else 0
            left -= sum(money for id_, _, money in unsettled if id_ == lease_id)
            if amount <= left:
                unsettled.append((lease_id, f"u{next(numbers)}", amount))
        elif kind == 3 and unsettled:
            id_, hold_id, money = unsettled.pop(n % len(unsettled))
            done = Settlement(hold_id, money, 0, unheld=(BUDGET,), leases=(id_,))
            state, _ = settle(state, done, NOW_US)
        elif kind == 4 and all(id_ != lease_id for id_, _, _ in unsettled):
            state, _ = take_back(state, TakenBack(lease_id, "b"), NOW_US)
        balance = state.accounts["b"]
        assert balance.posted + balance.held + balance.leased <= BUDGET.cap
        assert balance.leased == sum(lease.amount for lease in state.lent.values())
