"""Spools as files on a machine's disk: the records are the product's own, the disk is simulated."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from gateway.stores.lease_file import Kept
from gateway.stores.spool import Outcome, Record, SpoolUnavailable
from tests.simulator.dice import Dice
from tests.simulator.kernel import Process

SYNCED_AFTER_US: Final = 60_000  # a group sync every 50 ms
SEGMENT_US: Final = 60_000_000


class SpoolFile:
    """One writer's spool. `holder` has its lock: the writer, or who adopted it from a dead one."""

    def __init__(self, name: str, writer: Process, boot: int) -> None:
        self.name = name
        self.boot = boot
        self.holder = writer
        self.segments: list[list[Record]] = [[]]
        self.leases: tuple[Kept, ...] = ()  # the file beside it
        self._times: list[list[int]] = [[]]
        self._began_us = 0

    @property
    def is_locked(self) -> bool:
        return self.holder.alive

    @property
    def records(self) -> list[Record]:
        if len(self.segments) == 1:
            return self.segments[0]
        return [record for segment in self.segments for record in segment]

    @property
    def outcomes(self) -> list[bytes]:
        return [record.event for record in self.records if isinstance(record, Outcome)]

    def append(self, record: Record, now_us: int) -> None:
        if now_us - self._began_us > SEGMENT_US and self.segments[-1]:
            self.segments.append([])
            self._times.append([])
            self._began_us = now_us
        self.segments[-1].append(record)
        self._times[-1].append(now_us)

    def forget_unsynced(self, now_us: int, dice: Dice) -> set[str]:
        """The machine went down: of the last moments only a part, from the front, is on the disk.
        Answers the holds of which something is gone.
        """
        times = self._times[-1]
        sure = bisect_left(times, now_us - SYNCED_AFTER_US)
        kept = dice.between(sure, len(times))
        gone = {record.hold_id for record in self.segments[-1][kept:]}
        del self.segments[-1][kept:]
        del times[kept:]
        return gone

    def delete(self, segments: int) -> None:
        del self.segments[:segments]
        del self._times[:segments]
        if not self.segments:
            self.segments, self._times = [[]], [[]]


class Disk:
    """What a machine has on disk. `boot` changes when the machine was down."""

    def __init__(self) -> None:
        self.spools: dict[str, SpoolFile] = {}
        self.boot = 0
        self.full_until_us = 0
        self.reserve_left = 1_000_000

    def write(self, spool: SpoolFile, record: Record, now_us: int, *, reserved: bool) -> None:
        """Raises SpoolUnavailable; `reserved`: the record may use the space set aside."""
        if self.full_until_us > now_us:
            if not reserved or self.reserve_left <= 0:
                raise SpoolUnavailable("the disk of the spool is full")
            self.reserve_left -= 1
        spool.append(record, now_us)

    def keep(self, spool: SpoolFile, leases: Sequence[Kept], now_us: int) -> None:
        """As lease_file.write. Raises SpoolUnavailable."""
        if tuple(leases) == spool.leases:
            return
        if self.full_until_us > now_us:
            raise SpoolUnavailable("the disk of the spool is full")
        spool.leases = tuple(leases)

    def proves_absence(self, spool: SpoolFile) -> bool:
        """As spooled.proves_absence: the machine has not been down since."""
        return spool.boot == self.boot
