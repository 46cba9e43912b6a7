"""What became of each cell: a file a database that a broken-off run goes on from, and the table."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests.crash.cells import CALLS, CELLS, FAULTS, NO_POINT, POINTS, STRUCK_APART, Cell
from tests.crash.laws import Found


class Result(msgspec.Struct, frozen=True):
    """One cell on one database."""

    cell: str
    database: str
    seconds: float
    rows: int
    estimated: int
    late: int
    violations: list[str]


class Results:
    """In `directory`; what is there already was played by an earlier run. What that found in
    disorder is played again: the last word on each cell counts.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "crash-matrix.jsonl"
        lines = self._file.read_bytes().splitlines() if self._file.exists() else []
        decode = msgspec.json.Decoder(Result).decode
        self.all = {(r.cell, r.database): r for r in map(decode, lines)}

    def has(self, cell: Cell, database: str) -> bool:
        result = self.all.get((cell.name, database))
        return result is not None and not result.violations

    def add(self, cell: Cell, database: str, seconds: float, found: Found) -> None:
        result = Result(
            cell.name,
            database,
            round(seconds, 1),
            found.rows,
            found.estimated,
            found.late,
            found.violations,
        )
        self.all[cell.name, database] = result
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(result) + b"\n")

    def keep_logs(self, cell: Cell, database: str, logs: Iterable[Path]) -> None:
        """What the processes of a house said, beside the results: a disorder under load may not
        come again.
        """
        kept = self._file.parent / "logs" / f"{cell.name}, {database}".replace(" ", "_")
        kept.mkdir(parents=True, exist_ok=True)
        for log in logs:
            shutil.copy(log, kept / log.name)

    def violations(self) -> list[str]:
        return [
            f"{r.cell} on {r.database}: {fault}"
            for r in self.all.values()
            for fault in r.violations
        ]

    def table(self, databases: Sequence[str]) -> str:
        """Point x fault, one mark a database, and what the marks mean."""
        lines = [f"{'point':<26}{'crash':<9}" + "".join(f"{fault:<19}" for fault in FAULTS)]
        for point in (*POINTS, *CALLS):
            cells = [Cell(point, fault) for fault in FAULTS]
            if any((cell.name, database) in self.all for cell in cells for database in databases):
                marks = [" / ".join(self._mark(cell, one) for one in databases) for cell in cells]
                told = "".join(f"{mark:<19}" for mark in marks)
                lines.append(f"{point.name:<26}{point.crash:<9}{told}".rstrip())
        elsewhere = STRUCK_APART | NO_POINT
        lines += [*_LEGEND, *(f"{name:<26}{where}" for name, where in elsewhere.items())]
        return "\n".join([*lines, *self._sums(databases)])

    def _sums(self, databases: Sequence[str]) -> list[str]:
        """Of each database: cells played of those there are, rows by how they came, violations."""
        lines = []
        for database in databases:
            there = [cell for cell in CELLS if cell.is_on(database)]
            found = [self.all[c.name, database] for c in there if (c.name, database) in self.all]
            lines.append(
                f"{database}: {len(found)} of {len(there)} cells,"
                f" {sum(r.rows for r in found)} rows,"
                f" {sum(r.estimated for r in found)} estimated, {sum(r.late for r in found)} late;"
                f" {sum(len(r.violations) for r in found)} violations;"
                f" {sum(r.seconds for r in found):.0f} s"
            )
        return lines

    def _mark(self, cell: Cell, database: str) -> str:
        result = self.all.get((cell.name, database))
        if result is None:
            return cell.meaningless_on(database) or "."
        if result.violations:
            return f"!{len(result.violations)}"
        marks = f"{result.estimated}e" * bool(result.estimated)
        marks += f"{result.late}l" * bool(result.late)
        return f"ok {marks}".strip()


_LEGEND: Final = (
    "ok: no violation; e: rows by estimate, l: rows that came late or take an estimate back;",
    "!: violations; .: not played yet; and where a fault means nothing:",
    "  a  a thread, a callback or the worker's own loop passes there: no request is cancelled",
    "  b  nothing is sent there: what is, has a row of its own below",
    "  c  no point: cancellation at each await is test_cancellation*.py",
    "  d  SQLite is a file, not a connection",
    "and what is tried elsewhere:",
)
