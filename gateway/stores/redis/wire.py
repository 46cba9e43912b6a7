"""The bytes that Python and the scripts exchange, and the hold record as the store keeps it.

Redis's msgpack knows no binary strings, so bytes travel beside the msgpack, never inside it.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from policies.budgets import Account, Admission, Granted, Hold, Refused, Settlement, held_on
from policies.idempotency import FINISHED, IN_FLIGHT, OTHER_BODY, Keeping, Replay, Ticket
from policies.leases import LeaseAsked, Lent, TakenBack
from policies.limits import Gate, Slot
from policies.recount import Adoption, Correction, standing_on
from policies.slices import Slice, SliceAsked

RECORD_VERSION: Final = 1
_LENGTH: Final = 4  # the record ends with the length of what is kept unread
_OF_CODE: Final = (
    *("", "rate", "concurrency", "budget", "stale_window", "spent", "tickets", "", "unopened"),
    *("", "leased"),
)
_REPLAY: Final = 7
_OF_TICKET: Final = (IN_FLIGHT, FINISHED, OTHER_BODY)
_encode: Final = msgspec.msgpack.Encoder().encode


class RecordError(ValueError):
    """A hold record that this version cannot read."""


class _Asked(msgspec.Struct, frozen=True, array_like=True):
    """An admission on the wire; the scripts read it by position."""

    hold_id: str
    ttl_ms: int
    input_money: int
    output_money: int
    input_tokens: int
    wanted: int
    least: int
    choices: int
    gates: tuple[Gate, ...]
    slots: tuple[Slot, ...]
    accounts: tuple[Account, ...]
    owner: str = ""
    ticket: Ticket | None = None
    firm: bool = False


_META_AT: Final = Admission.__struct_fields__.index("meta")


class _Record(msgspec.Struct, frozen=True, array_like=True):
    version: int
    grant: int
    admitted_at_ms: int
    asked: _Asked


_records: Final = msgspec.msgpack.Decoder(_Record)


def admission_args(a: Admission) -> tuple[bytes, bytes]:
    asked = astuple(a)  # in the order of _Asked, with the meta before the owner
    told = (*asked[:_META_AT], a.owner, a.ticket)
    packed = _encode((*told, True) if a.firm else told)
    return packed, a.meta + len(a.meta).to_bytes(_LENGTH, "big")


def settlement_args(s: Settlement) -> tuple[bytes, bytes]:
    told: tuple[Any, ...] = (s.hold_id, s.money, s.tokens, s.gate_corrections)
    if s.unheld:
        told = (*told, s.reaping, s.unprocessed, s.unheld, s.leases)
    elif s.reaping is not None or s.unprocessed:
        told = (*told, s.reaping, s.unprocessed)
    return _encode(told), s.event or b""


def keeping_args(k: Keeping) -> tuple[bytes, bytes]:
    return _encode((k.index, k.name, k.hold_id, k.ttl_ms, k.most_bytes)), k.answer


def release_args(hold_id: str, corrections: tuple[tuple[str, int], ...]) -> tuple[bytes]:
    return (_encode((hold_id, corrections)),)


def extension_args(hold_id: str, ttl_ms: int) -> tuple[bytes]:
    return (_encode((hold_id, ttl_ms)),)


def correction_args(
    corrections: Sequence[Correction], adopted: Sequence[Adoption]
) -> list[bytes | int]:
    """What correct.lua takes beside the token."""
    told: list[bytes | int] = [len(corrections), *(_encode(one) for one in corrections)]
    for one in adopted:
        ask = one.hold.admission
        due = [(of.key, of.unit, held_on(of, ask, one.hold.grant)) for of in one.accounts]
        packed, kept = admission_args(standing_on(one.hold, one.accounts).admission)
        told += [_encode((ask.hold_id, len(ask.accounts), due)), packed + kept]
    return told


def lease_args(asked: LeaseAsked) -> tuple[bytes]:
    return (_encode(asked),)


def back_args(back: TakenBack) -> tuple[bytes]:
    return (_encode(back),)


def slice_args(asked: SliceAsked) -> tuple[bytes]:
    return (_encode(asked),)


_TOLD_OF_BUDGETS: Final = 6


def admitted(ask: Admission, now_us: int, answer: list[Any]) -> Granted | Refused | Replay:
    """What admit.lua answered to this request."""
    now_ms, code = now_us // 1000, answer[0]
    if code == _REPLAY:
        return Replay(_OF_TICKET[answer[1]], answer[2].decode(), answer[3])
    if code:
        refused = Refused(_OF_CODE[code], answer[1], answer[2], now_ms, answer[3])
        if len(answer) == _TOLD_OF_BUDGETS:
            refused = msgspec.structs.replace(refused, left=answer[4], unheld=answer[5] == 1)
        return refused
    gates_at = 4 + len(ask.accounts)
    remaining, waits = tuple(answer[4:gates_at]), tuple(answer[gates_at:])
    return Granted(answer[2], answer[3], now_ms, remaining, waits, answer[1] == 1)


def found(_subject: Any, _now_us: int, answer: int) -> bool:
    """What the other scripts answer: whether the hold was there."""
    return answer == 1


def sliced(_asked: Any, _now_us: int, answer: list[Any]) -> Slice | None:
    """What slice.lua answers: the grant as it is now, or None when the hold is not there."""
    there, grant, blocked, leased = answer
    return Slice(grant, blocked, tuple(key.decode() for key in leased)) if there else None


def lent(_asked: Any, now_us: int, answer: list[int]) -> Lent:
    """What lend.lua answers: what the lease is now."""
    return Lent(answer[1], now_us // 1000)


def hold(record: bytes) -> Hold | None:
    """The hold of one record; None for an id that is spent. Raises RecordError."""
    if not record:
        return None
    kept = int.from_bytes(record[-_LENGTH:], "big")
    end = len(record) - _LENGTH - kept
    try:
        read = _records.decode(record[:end])
    except msgspec.MsgspecError as fault:
        raise RecordError(f"unreadable hold record: {fault}") from fault
    if read.version != RECORD_VERSION:
        raise RecordError(f"hold record of version {read.version}; this one reads 1")
    ask = Admission(**msgspec.structs.asdict(read.asked), meta=record[end:-_LENGTH])
    return Hold(read.grant, read.admitted_at_ms, ask)
