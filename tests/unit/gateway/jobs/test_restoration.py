"""What spools know that a store without its state does not, and which holds that a rebuild put back
are over by the time it looks again.
"""

from pathlib import Path

from billing.usage import DECODER
from gateway.jobs.evidence import Unheld, ended_by_living
from gateway.jobs.replay_spool import handed_in
from gateway.jobs.restoration import Living, by_living, done
from gateway.stores.lease_file import Kept
from gateway.stores.spool import Closed, Dispatch, Intent, Outcome, Record
from policies.accounts import MONEY, NO_CAP, Account
from tests.spooling import event, living_spool

BEGUN = [
    Intent("req_1", "s00", 1, b""),
    Dispatch("req_1", 0, "be_1", 2),
    Intent("req_2", "s00", 1, b""),
]
ENDED: list[Record] = [Outcome("req_1", event("req_1", 0)), Closed("req_2")]
OWNER = "data-0.w_1"


def placed(*hold_ids: str) -> list[Living]:
    template = DECODER.decode(event("req_1", 0))
    return [Living(hold_id, b"", template, OWNER) for hold_id in hold_ids]


def test_of_a_living_writer_what_it_has_not_open_is_over(tmp_path: Path) -> None:
    with living_spool(tmp_path, [[*BEGUN, ENDED[0]]]):
        assert done(tmp_path, placed("req_1", "req_2", "req_0")).hold_ids == {
            "req_1",
            "req_0",
        }


def test_what_a_writer_left_open_that_died_since_is_left_to_its_replay(tmp_path: Path) -> None:
    with living_spool(tmp_path, [[*BEGUN, ENDED[1]]]):
        pass

    assert done(tmp_path, placed("req_1", "req_2")).hold_ids == {"req_2"}


def test_what_a_dead_writer_lost_with_its_machine_is_left_to_the_reaper(tmp_path: Path) -> None:
    with living_spool(tmp_path, [BEGUN[2:]]):
        pass

    assert done(tmp_path, placed("req_1", "req_2")).hold_ids == set()


def test_a_spool_that_is_gone_was_replayed_to_the_end(tmp_path: Path) -> None:
    assert done(tmp_path, placed("req_1")).hold_ids == {"req_1"}


def test_what_it_came_to_is_told_of_a_request_whose_hold_is_taken_away(tmp_path: Path) -> None:
    account = Account("mh:{s00}:acct:b:m", NO_CAP, 0, 2**52, MONEY, "b")
    without_the_store = Outcome("req_3", event("req_3", 0), (account,))
    begun = [*BEGUN, Intent("req_3", "s00", 1, b"", (account,)), Dispatch("req_3", 0, "be_1", 2)]
    with living_spool(tmp_path, [[*begun, ENDED[0], without_the_store]]):
        over = done(tmp_path, placed("req_1", "req_2", "req_3"))

    assert [one.request_id for one in over.events] == ["req_1", "req_3"]
    assert over.unheld == {"req_3": Unheld((account,))}


def test_what_is_booked_of_who_may_not_have_posted_it_is_neither_lent_nor_posted_again() -> None:
    """The jobs told the ledger of it while its worker was stopped."""
    account = Account("mh:{s00}:acct:b:m", NO_CAP, 0, 2**52, MONEY, "b")
    over, goes_on = (
        [
            Intent(hold_id, "s00", 1, b"", (account,), ("w_1/0",)),
            Dispatch(hold_id, 0, "be_1", 2),
            Outcome(hold_id, event(hold_id, 0), (account,), ("w_1/0",)),
        ]
        for hold_id in ("req_1", "req_2")
    )
    again = Dispatch("req_2", 1, "be_2", 3)
    cost = DECODER.decode(event("req_1", 0)).counter_nanos

    said = by_living(
        [*over, *goes_on, again],
        [Kept("w_1/0", "s00", account, cost + 7)],
        OWNER,
        lambda ids: {one for one in ids if not one.startswith("req_1")},
    )

    assert [one.request_id for one in said.booked] == ["req_1"]
    assert [one.request_id for one in said.events] == ["req_2"]
    assert said.unheld == {"req_1": Unheld((account,), ("w_1/0",))}
    assert [one.amount for one in said.lent] == [7]


def test_what_a_living_writer_has_ended_and_the_ledger_lacks_is_handed_in_as_by_itself() -> None:
    account = Account("mh:{s00}:acct:b:m", NO_CAP, 0, 2**52, MONEY, "b")
    held, booked = (Outcome(one, event(one, 0)) for one in ("req_1", "req_4"))
    unheld = Outcome("req_3", event("req_3", 0), (account,), ("w_1/0",))
    goes_on = [Outcome("req_2", event("req_2", 0)), Dispatch("req_2", 1, "be_2", 3)]

    found = ended_by_living(
        [*BEGUN, held, *goes_on, unheld, booked],
        lambda ids: {one for one in ids if not one.startswith("req_4")},
    )

    assert [one.request_id for one in found.events] == ["req_1", "req_3"]
    assert [handed_in(one, found).hold_id for one in found.events] == ["req_1", "req_3"]
    assert [handed_in(one, found).unheld for one in found.events] == [(), (account,)]
    assert [handed_in(one, found).leases for one in found.events] == [(), ("w_1/0",)]
