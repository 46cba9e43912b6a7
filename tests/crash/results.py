"""What became of each cell: a file a database that a broken-off run goes on from, and the table."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.crash.cells import CALLS, FAULTS, POINTS, Cell
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
    """In `directory`; what is there already was played by an earlier run."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "crash-matrix.jsonl"
        lines = self._file.read_bytes().splitlines() if self._file.exists() else []
        decode = msgspec.json.Decoder(Result).decode
        self.all = {(r.cell, r.database): r for r in map(decode, lines)}

    def has(self, cell: Cell, database: str) -> bool:
        return (cell.name, database) in self.all

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

    def violations(self) -> list[str]:
        return [
            f"{r.cell} on {r.database}: {fault}"
            for r in self.all.values()
            for fault in r.violations
        ]

    def table(self, databases: Sequence[str]) -> str:
        """Point x fault, one mark a database: `ok`, and how many rows were estimated (`e`) or came
        late (`l`); `!` and the number of violations; `-` where the fault means nothing.
        """
        lines = [f"{'point':<22}{'crash':<9}" + "".join(f"{fault:<22}" for fault in FAULTS)]
        for point in (*POINTS, *CALLS):
            marks = [
                " / ".join(self._mark(Cell(point, fault), database) for database in databases)
                for fault in FAULTS
            ]
            if any(set(mark) - set("- /") for mark in marks):
                cells = "".join(f"{mark:<22}" for mark in marks)
                lines.append(f"{point.name:<22}{point.crash:<9}{cells}".rstrip())
        played = len(self.all)
        seconds = sum(result.seconds for result in self.all.values())
        lines.append(
            f"{' / '.join(databases)}: {played} cells, {len(self.violations())} violations,"
            f" {seconds:.0f} s"
        )
        return "\n".join(lines)

    def _mark(self, cell: Cell, database: str) -> str:
        result = self.all.get((cell.name, database))
        if result is None:
            return "-"
        if result.violations:
            return f"!{len(result.violations)}"
        marks = f"{result.estimated}e" * bool(result.estimated)
        marks += f"{result.late}l" * bool(result.late)
        return f"ok {marks}".strip()
