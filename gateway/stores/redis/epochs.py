"""Which state of the store may be admitted against: its epoch, one a tag.

An epoch names the very process of the store that the counters were made whole in. A store that was
restarted, restored, failed over or swapped is another process; one that was emptied has no epoch.
Neither is admitted against until the counters were rebuilt and the next epoch was published.
"""

import re
from typing import Final

import msgspec

from gateway.stores.redis import keys
from gateway.stores.redis.channel import Channels, Link, StoreUnavailable
from gateway.stores.redis.scripts import CLOSE_EPOCH, OPEN_EPOCH

_WRITTEN: Final = re.compile(r"(open|closed):(\d{1,18}):(\d{1,16}):([0-9a-zA-Z]+)")


class Epoch(msgspec.Struct, frozen=True):
    """`number` only grows. The counters know all that was spent from `since_ms` on by the store's
    clock, and of earlier windows what they were opened with.
    """

    is_open: bool
    number: int
    since_ms: int
    run_id: str

    def __str__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"{state}:{self.number}:{self.since_ms}:{self.run_id}"


def parse(text: str) -> Epoch | None:
    """None for what no release has written."""
    match = _WRITTEN.fullmatch(text)
    if match is None:
        return None
    return Epoch(match[1] == "open", int(match[2]), int(match[3]), match[4])


class Guard:
    """What one process knows of one tag's epoch. Every admission bears it, and the store refuses
    one that bears another than its own.

    Whoever was stopped, or cut off, may come back to a process that was replaced meanwhile and is
    back as well, with the data it had: there the epoch is the one that both know. So whoever hears
    the ledger now and then hears it once more after each new connection, before anything is
    believed.
    """

    def __init__(self, channel: Link, least: int = 0, heard_us: int | None = None) -> None:
        """`least` is the number that the ledger remembers: no smaller one is believed. `heard_us`:
        when it was asked, by the monotonic clock; None: nobody asks it.
        """
        self._channel = channel
        self._least = least
        self._heard_us = heard_us
        self._known: Epoch | None = None
        self._text = b""

    @property
    def token(self) -> bytes:
        """The epoch of the process that we are connected to; empty where we know of none."""
        return self._text if self.known else b""

    @property
    def known(self) -> Epoch | None:
        """The epoch of the process that we are connected to, if we know it."""
        known = self._known
        if known is None or known.run_id != self._channel.run_id or self.doubts:
            return None
        return known

    @property
    def doubts(self) -> bool:
        """Whether the ledger has not been heard since we are connected."""
        return self._heard_us is not None and self._heard_us < self._channel.since_us

    def is_over(self, epoch: Epoch) -> bool:
        """Whether we know of another state than that one."""
        run_id = self._channel.run_id
        return epoch.number < self._least or run_id not in {"", epoch.run_id}

    def at_least(self, number: int, heard_us: int | None = None) -> None:
        """The ledger says that an epoch was begun; `heard_us`: when it was asked."""
        if heard_us is not None:
            self._heard_us = max(self._heard_us or 0, heard_us)
        self._least = max(self._least, number)
        if self._known is not None and self._known.number < self._least:
            self._known = None

    def told(self, text: str) -> bool:
        """The store says what its epoch is; whether that is one to go on with. State that was
        current once is known by its number or by the process that it was current in.
        """
        epoch = parse(text)
        if epoch is None or not epoch.is_open or epoch.number < self._least:
            return False
        if epoch.run_id != self._channel.run_id or self.doubts:
            return False
        self._known, self._least, self._text = epoch, epoch.number, text.encode()
        return True


async def read(channels: Channels, tag: str) -> Epoch | None:
    """What the store says. Raises StoreUnavailable."""
    text = await channels.of(tag).ask("GET", keys.epoch(tag))
    return None if text is None else parse(text.decode(errors="replace"))


def is_whole(channels: Channels, tag: str, epoch: Epoch | None, least: int) -> bool:
    """Whether admissions may go on against it."""
    if epoch is None or not epoch.is_open or epoch.number < least:
        return False
    return epoch.run_id == channels.of(tag).run_id


async def close(channels: Channels, tag: str, number: int, lease: tuple[str, str]) -> Epoch:
    """Begin this epoch: nothing is admitted until it is opened. `lease`: its key and token.

    Raises StoreUnavailable, also when the lease is not ours any more.
    """
    channel = channels.of(tag)
    run_id = channel.run_id
    text = await channel.ask(
        "EVAL", CLOSE_EPOCH.text, 2, keys.epoch(tag), lease[0], lease[1], number, run_id
    )
    epoch = parse(text.decode()) if text else None
    if epoch is None or channel.run_id != run_id:
        raise StoreUnavailable("another one rebuilds the counters, or the store is another")
    return epoch


async def open_again(
    channels: Channels, tag: str, closed: Epoch, lease: tuple[str, str], since_ms: int
) -> Epoch:
    """Publish the epoch that was closed. Raises StoreUnavailable, also when the store has another
    one by now or the lease is not ours any more.
    """
    opened = msgspec.structs.replace(closed, is_open=True, since_ms=since_ms)
    done = await channels.of(tag).ask(
        "EVAL", OPEN_EPOCH.text, 2, keys.epoch(tag), lease[0], lease[1], str(closed), str(opened)
    )
    if not done:
        raise StoreUnavailable("another one rebuilds the counters")
    return opened
