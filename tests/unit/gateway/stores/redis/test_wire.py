"""What goes over the wire comes back, and what another version wrote is refused by name."""

import msgspec
import pytest

from gateway.stores.redis import wire
from policies.budgets import Account, Admission, Hold
from policies.limits import Gate, Slot

ASK = Admission(
    "req_1",
    30_000,
    2**53 - 1 - 10,
    10,
    100,
    200,
    1,
    1,
    (Gate("g", 1, 2, "lim", "rpm"),),
    (Slot("s", 3, "lim"),),
    (Account("a", -1, 0, 2**52, 0, "bud"),),
    b"\x00\xffkept",
)


def record(version: int = 1) -> bytes:
    """A record as admit.lua composes it."""
    asked, kept = wire.admission_args(ASK)
    return b"\x94" + b"".join(msgspec.msgpack.encode(n) for n in (version, 64, 123)) + asked + kept


def test_a_hold_record_reads_back_whole() -> None:
    assert wire.hold(record()) == Hold(64, 123, ASK)
    bare = msgspec.structs.replace(ASK, meta=b"")
    assert wire.admission_args(bare)[1] == bytes(4)


def test_a_spent_id_has_no_hold() -> None:
    assert wire.hold(b"") is None


@pytest.mark.parametrize("bad", [record(2), record()[5:], b"\x00"])
def test_a_record_of_another_kind_is_refused(bad: bytes) -> None:
    with pytest.raises(wire.RecordError):
        wire.hold(bad)
