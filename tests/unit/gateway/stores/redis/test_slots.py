"""Who holds which slot, by what the servers of a cluster say."""

import pytest

from gateway.stores.redis.slots import Claim, merged, owner, read, slot_of

ASKED = ("10.0.0.9", 7000)
TOLD = """\
07c37df 10.0.0.1:30004@31004,hostname4 slave e7d1eec 0 1426238317239 4 connected
67ed2db 10.0.0.2:30002@31002,hostname2 master - 0 1426238316232 2 connected 5461-10922
292f8b3 10.0.0.3:30003@31003 master,fail - 0 1426238318243 3 connected
a1b2c3d :0@0 master,noaddr - 0 1426238318243 9 disconnected 1-2
e7d1eec :30001@31001,,shard-id=1 myself,master - 0 0 7 connected 0-5460 10923 [77->-67ed2db]
"""


@pytest.mark.parametrize(("tag", "slot"), [("foo", 12182), ("123456789", 12739)])
def test_a_tag_names_its_slot_as_the_servers_do(tag: str, slot: int) -> None:
    assert slot_of(tag) == slot


def test_a_server_tells_who_holds_what_and_whom_it_knows() -> None:
    view = read(TOLD, ASKED)
    here, there = ("10.0.0.9", 30001), ("10.0.0.2", 30002)
    assert view.claims == (
        Claim(2, 5461, 10922, there),
        Claim(7, 0, 5460, here),
        Claim(7, 10923, 10923, here),
    )
    assert set(view.nodes) == {("10.0.0.1", 30004), there, ("10.0.0.3", 30003), here}


def test_names_are_preferred_where_a_certificate_is_made_out_to_them() -> None:
    nodes = read(TOLD, ASKED, by_name=True).nodes
    assert ("hostname2", 30002) in nodes
    assert ("10.0.0.9", 30001) in nodes  # it has told none


def test_what_is_no_such_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="unpack"):
        read("-ERR nonsense", ASKED)


def test_the_later_epoch_holds_whoever_says_it() -> None:
    old, new, other = ("a", 1), ("b", 1), ("c", 1)
    before = [Claim(1, 0, 100, old), Claim(2, 101, 200, other)]
    after = merged(before, [Claim(3, 0, 100, new)])
    assert after == (Claim(3, 0, 100, new), Claim(2, 101, 200, other))
    # One that was cut off still believes the old.
    assert merged(after, before) == after
    assert (owner(after, 100), owner(after, 101), owner(after, 201)) == (new, other, None)


def test_slots_that_were_moved_belong_to_the_other_from_then_on() -> None:
    one, two = ("a", 1), ("b", 1)
    after = merged([Claim(1, 0, 9, one)], [Claim(1, 0, 4, one), Claim(2, 5, 9, two)])
    assert after == (Claim(1, 0, 4, one), Claim(2, 5, 9, two))
