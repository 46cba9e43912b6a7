"""The journal: a stream that is read by a group. Its ids only grow, whatever befalls the store."""

from collections.abc import Sequence

import msgspec


class Entry(msgspec.Struct):
    """One entry; `reader` has read it and not said that it is done."""

    id: int
    event: bytes
    hold_found: bool
    reader: str = ""


class Journal:
    def __init__(self) -> None:
        self.last = 0  # the newest entry that there ever was
        self._entries: dict[int, Entry] = {}  # oldest first
        self._next = 1
        self._unread = 0  # entries up to here were read once

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, event: bytes, hold_found: bool) -> None:
        self.last, self._next = self._next, self._next + 1
        self._entries[self.last] = Entry(self.last, event, hold_found)

    def take(self, reader: str, most: int) -> tuple[Entry, ...]:
        taken = []
        for number in range(self._unread + 1, self._next):
            entry = self._entries.get(number)
            self._unread = number
            if entry is not None:
                entry.reader = reader
                taken.append(entry)
                if len(taken) == most:
                    break
        return tuple(taken)

    def reclaim(self, reader: str, most: int) -> tuple[Entry, ...]:
        orphans = [entry for entry in self._entries.values() if entry.reader][:most]
        for entry in orphans:
            entry.reader = reader
        return tuple(orphans)

    def waiting(self, until: int | None = None) -> tuple[bytes, ...]:
        """The events of all entries, or of those up to one."""
        some = self._entries.values()
        return tuple(entry.event for entry in some if until is None or entry.id <= until)

    def done(self, ids: Sequence[int]) -> None:
        for id_ in ids:
            self._entries.pop(id_, None)

    def copied(self) -> "Journal":
        copy = Journal()
        copy.last, copy._next, copy._unread = self.last, self._next, self._unread
        copy._entries = {id_: msgspec.structs.replace(e) for id_, e in self._entries.items()}
        return copy

    def emptied(self) -> "Journal":
        empty = Journal()
        empty._next, empty._unread = self._next, self._next - 1
        return empty

    def after(self, other: "Journal") -> "Journal":
        """This one, its next entry newer than those of the other."""
        copy = self.copied()
        copy._next = max(copy._next, other._next)
        return copy
