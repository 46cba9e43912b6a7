"""What each process has counted, left where the admin process can read it.

A process rewrites its file every second and holds a lock as long as it lives. Whoever reads folds
the files of dead processes into one that stays, so no counter goes back when a worker dies, is
restarted, or is killed half way through a fold.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from gateway.telemetry.metrics import GAUGE_MAX, GAUGE_SUM, FamilyValues, Labels

_SUFFIX: Final = ".mp"
_RETIRED: Final = "retired"


class Snapshot(msgspec.Struct, frozen=True):
    """`folded` names the instances a retired file contains whose own files may still be there."""

    v: int
    families: list[FamilyValues]
    folded: list[str] = []


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Snapshot)


class SnapshotFile:
    """The file of one process. The instance name is never used again, not even by a restart."""

    def __init__(self, directory: Path, instance: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / (instance + _SUFFIX)
        # Locked before the first snapshot exists: a file without a lock belongs to the dead.
        self._lock = os.open(directory / (instance + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def write(self, families: list[FamilyValues]) -> None:
        _replace(self._path, _ENCODER.encode(Snapshot(1, families)))

    def close(self) -> None:
        """From here on this process counts as dead, and its figures as final."""
        os.close(self._lock)


def collect(directory: Path) -> list[FamilyValues]:
    """The figures of all processes, living and dead, each shown name on its own."""
    directory.mkdir(parents=True, exist_ok=True)
    with _only_one(directory):
        retired = _read(directory / (_RETIRED + _SUFFIX)) or Snapshot(1, [])
        _forget(directory, retired.folded)
        living, dead = _instances(directory)
        if dead:
            retired = _fold(directory, retired, dead)
            _forget(directory, retired.folded)
    return merged([*retired.families, *living])


def merged(families: Iterable[FamilyValues]) -> list[FamilyValues]:
    """One entry a shown name; series of equal labels are added up (or the greatest is taken).

    Figures of another shape under the same name (an older version's buckets) give way to the later.
    """
    found: dict[str, FamilyValues] = {}
    series: dict[str, dict[Labels, list[int]]] = {}
    for values in families:
        for name in values.family.names:
            family = msgspec.structs.replace(values.family, names=(name,))
            if name not in found or _shape(found[name]) != _shape(values):
                found[name], series[name] = FamilyValues(family, []), {}
            _add(series[name], values)
    return [
        FamilyValues(found[name].family, list(rows.items()))
        for name, rows in sorted(series.items())
    ]


def _shape(values: FamilyValues) -> tuple[object, ...]:
    family = values.family
    return family.kind, family.labels, family.bounds, family.divisor


def _add(series: dict[Labels, list[int]], values: FamilyValues) -> None:
    for labels, cells in values.rows:
        before = series.get(labels)
        if before is None:
            series[labels] = list(cells)
        elif values.family.kind == GAUGE_MAX:
            series[labels] = [max(before[0], cells[0])]
        else:
            series[labels] = [a + b for a, b in zip(before, cells, strict=True)]


def _instances(directory: Path) -> tuple[list[FamilyValues], dict[str, list[FamilyValues]]]:
    living: list[FamilyValues] = []
    dead: dict[str, list[FamilyValues]] = {}
    for path in sorted(directory.glob("*" + _SUFFIX)):
        if path.stem == _RETIRED:
            continue
        alive = _is_alive(directory / (path.stem + ".lock"))
        # Read after the question, so that the last figures of the dead are in.
        snapshot = _read(path) or Snapshot(1, [])
        if alive:
            living.extend(snapshot.families)
        else:
            dead[path.stem] = snapshot.families
    return living, dead


def _fold(directory: Path, retired: Snapshot, dead: dict[str, list[FamilyValues]]) -> Snapshot:
    """Gauges die with their process; everything else lasts."""
    lasting = (
        values
        for values in chain.from_iterable(dead.values())
        if values.family.kind not in {GAUGE_SUM, GAUGE_MAX}
    )
    folded = Snapshot(1, merged([*retired.families, *lasting]), list(dead))
    _replace(directory / (_RETIRED + _SUFFIX), _ENCODER.encode(folded), durable=True)
    return folded


def _forget(directory: Path, folded: list[str]) -> None:
    """Removes what is folded. Killed before this, the names in `folded` prevent a second fold."""
    for name in folded:
        (directory / (name + _SUFFIX)).unlink(missing_ok=True)
        (directory / (name + ".lock")).unlink(missing_ok=True)


def _is_alive(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    fd = os.open(directory / "collect.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _read(path: Path) -> Snapshot | None:
    """None for a file that is gone, or torn by a machine that lost power."""
    with suppress(FileNotFoundError, msgspec.DecodeError):
        return _DECODER.decode(path.read_bytes())
    return None


def _replace(path: Path, content: bytes, *, durable: bool = False) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    new.replace(path)
