"""The house's own source files, parsed."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LIBRARIES: Final = ("billing", "policies")
PACKAGES: Final = ("gateway", *LIBRARIES)
_GENERATED: Final = ROOT / "gateway" / "stores" / "sql" / "migrations"


def modules(*packages: str) -> Iterator[Path]:
    """Python files of these packages, without database migrations: those are written once, by a
    tool, and never tidied.
    """
    for package in packages or PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if _GENERATED not in path.parents:
                yield path


def trees(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in modules(*packages):
        yield path, ast.parse(path.read_text(), str(path))


def place(path: Path, line: int = 0) -> str:
    """How a fault is shown: a path from the root, with the line where there is one."""
    shown = path.relative_to(ROOT).as_posix()
    return f"{shown}:{line}" if line else shown


def dotted(path: Path) -> str:
    """The module's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
