"""Putting holds and leases back while a tag is closed. The rules are in policies.rebuild and
policies.leases.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.stores.lease_file import Kept
from gateway.stores.redis import keys, wire
from gateway.stores.redis.channel import Channels, StoreUnavailable
from gateway.stores.redis.epochs import Epoch
from gateway.stores.redis.scripts import LEND, RESTORE, TAKE_BACK, Script
from policies.accounts import NO_CAP
from policies.budgets import Admission
from policies.leases import LeaseAsked, TakenBack

_AT_ONCE: Final = 64
_LENT_MS: Final = 60_000  # a worker that is there gives it back long before


async def restore(
    channels: Channels, tag: str, closed: Epoch, asks: Sequence[Admission]
) -> list[str]:
    """The ids of those that were not there. Safe to run again. Raises StoreUnavailable, also when
    the tag is not closed by this epoch; some may be placed then.
    """
    placed: list[str] = []
    names = (keys.holds(tag), keys.epoch(tag))
    for start in range(0, len(asks), _AT_ONCE):
        part = asks[start : start + _AT_ONCE]
        args = [arg for ask in part for arg in wire.admission_args(ask)]
        _, *answers = await channels.of(tag).ask(
            "EVAL", RESTORE.text, 2, *names, str(closed), *args
        )
        for ask, answer in zip(part, answers, strict=True):
            if isinstance(answer, list):
                raise StoreUnavailable(answer[1].decode(errors="replace"))
            if answer:
                placed.append(ask.hold_id)
    return placed


async def take_back(
    channels: Channels, tag: str, closed: Epoch, leases: Sequence[TakenBack]
) -> None:
    """End these. Safe to run again. Raises StoreUnavailable as `restore` does."""
    await _told(channels, tag, closed, TAKE_BACK, [wire.back_args(one)[0] for one in leases])


async def lend_again(channels: Channels, tag: str, closed: Epoch, leases: Sequence[Kept]) -> None:
    """Put these back as they are. Safe to run again. Raises StoreUnavailable as `restore` does."""
    args = [wire.lease_args(lent_again(one))[0] for one in leases]
    await _told(channels, tag, closed, LEND, args)


async def _told(
    channels: Channels, tag: str, closed: Epoch, script: Script, args: Sequence[bytes]
) -> None:
    names = (keys.leases(tag), keys.epoch(tag))
    for start in range(0, len(args), _AT_ONCE):
        part = args[start : start + _AT_ONCE]
        _, *answers = await channels.of(tag).ask("EVAL", script.text, 2, *names, str(closed), *part)
        for answer in answers:
            if isinstance(answer, list) and answer[0]:
                raise StoreUnavailable(answer[1].decode(errors="replace"))


def lent_again(one: Kept) -> LeaseAsked:
    """What is asked for it: all of it, whatever is left of its account."""
    uncapped = msgspec.structs.replace(one.account, cap=NO_CAP)
    return LeaseAsked(one.lease_id, _LENT_MS, one.amount, 0, 1, uncapped)
