"""Recounting accounts in the store: the cut, the correction, and the journal between them.

The rules are in policies.recount. While a recount asks for it, no journal entry goes into the
ledger: what is in the one and what is in the other then belongs to one instant.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from gateway.clock import monotonic_us
from gateway.stores.redis import keys, wire
from gateway.stores.redis.channel import Channels, StoreUnavailable
from gateway.stores.redis.scripts import CORRECT, CUT, LEASE_RETURN
from policies.budgets import Balance
from policies.recount import Adoption, Correction

GOOD_FOR_MS: Final = 60_000
_STILL_MS: Final = 10_000  # should whoever asked for it die, the drain goes on after that
_STILL_WITHIN_US: Final = 8_000_000
_ASK_AGAIN_S: Final = 0.01
_AT_ONCE: Final = 1_000


class Cut(msgspec.Struct, frozen=True):
    """`shown` beside the keys asked for; None: no such account. `last` is the id of the newest
    entry that the journal ever had, and `entries` how many are in it. `added`: how many it had had,
    in all, just before.
    """

    token: str
    shown: tuple[Balance | None, ...]
    last: bytes
    entries: int
    added: int


async def cut(channels: Channels, tag: str, account_keys: Sequence[str]) -> Cut:
    """What these accounts show now. Raises StoreUnavailable."""
    added, _ = await _written(channels, tag)
    token = secrets.token_hex(16)
    last, entries, *figures = await channels.of(tag).ask(
        "EVAL", CUT.text, 2, keys.cut(tag), keys.journal(tag), token, GOOD_FOR_MS, *account_keys
    )
    pairs = zip(figures[::2], figures[1::2], strict=True)
    shown = tuple(
        None if posted is None and held is None else Balance(int(posted or 0), int(held or 0))
        for posted, held in pairs
    )
    return Cut(token, shown, last, int(entries), added)


async def _written(channels: Channels, tag: str) -> tuple[int, bytes]:
    """How many entries the journal has had, and the id of the newest."""
    ask, key = channels.of(tag).ask, keys.journal(tag)
    if not await ask("EXISTS", key):
        return 0, b"0-0"
    found = await ask("XINFO", "STREAM", key)
    about = dict(zip(found[::2], found[1::2], strict=True))
    return int(about[b"entries-added"]), about[b"last-generated-id"]


async def correct(
    channels: Channels,
    tag: str,
    token: str,
    corrections: Sequence[Correction],
    adopted: Sequence[Adoption] = (),
) -> bool:
    """Whether they are made; False: another cut came after this one, or the holds stand on other
    accounts by now. Raises StoreUnavailable, and then they may be made or not.
    """
    named = keys.cut(tag), keys.holds(tag)
    told = wire.correction_args(corrections, adopted)
    return bool(await channels.of(tag).ask("EVAL", CORRECT.text, 2, *named, token, *told))


async def moved_since(channels: Channels, tag: str, one: Cut) -> bool:
    """Whether anything was, or may have been, settled after the cut: decisions that led to nothing
    come all the time, and more than ever while requests are refused. Raises StoreUnavailable.
    """
    added, last = await _written(channels, tag)
    if last == one.last:
        return False
    entries = await channels.of(tag).ask(
        "XRANGE", keys.journal(tag), b"(" + one.last, last, "COUNT", _AT_ONCE
    )
    all_are_there = len(entries) == added - one.added  # what was drained meanwhile is not
    return not all_are_there or any(b"e" in fields[::2] for _, fields in entries)


async def journaled(channels: Channels, tag: str, until: bytes) -> list[bytes]:
    """The usage events of all entries up to `until` that are still there. Raises
    StoreUnavailable.
    """
    found: list[bytes] = []
    after: str | bytes = "-"
    while True:
        entries = await channels.of(tag).ask(
            "XRANGE", keys.journal(tag), after, until, "COUNT", _AT_ONCE
        )
        for _, fields in entries:
            event = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"e")
            if event is not None:  # else a decision that led to nothing
                found.append(event)
        if len(entries) < _AT_ONCE:
            return found
        after = b"(" + entries[-1][0]


@asynccontextmanager
async def still(channels: Channels, tag: str) -> AsyncIterator[None]:
    """Nothing of this tag's journal goes into the ledger meanwhile. Raises StoreUnavailable, also
    when the drain does not come to rest.
    """
    ask, token = channels.of(tag).ask, secrets.token_hex(16)
    asked, drain = keys.lease(keys.still(tag)), keys.lease(keys.drain(tag))
    until_us = monotonic_us() + _STILL_WITHIN_US
    try:
        await ask("SET", asked, token, "PX", _STILL_MS)
        while not await ask("SET", drain, token, "NX", "PX", _STILL_MS):
            if monotonic_us() > until_us:
                raise StoreUnavailable("the journal's drain does not come to rest")
            await asyncio.sleep(_ASK_AGAIN_S)
        yield
    finally:
        for name in (drain, asked):
            with suppress(StoreUnavailable):  # then it expires
                await ask("EVAL", LEASE_RETURN.text, 1, name, token)
