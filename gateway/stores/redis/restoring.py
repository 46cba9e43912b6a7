"""Putting holds back while a tag is closed. The rules are in policies.rebuild."""

from collections.abc import Sequence
from typing import Final

from gateway.stores.redis import keys, wire
from gateway.stores.redis.channel import Channels, StoreUnavailable
from gateway.stores.redis.epochs import Epoch
from gateway.stores.redis.scripts import RESTORE
from policies.budgets import Admission

_AT_ONCE: Final = 64


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
