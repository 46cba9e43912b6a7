"""What to type for this program: whatever command is printed runs as it is printed."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

_NAME: Final = "meterhouse"


def program() -> str:
    """Plain where a shell finds this very one by its name, else its path, from here if it lies
    below; of `python -m gateway`, that beside the interpreter.
    """
    path = Path(sys.argv[0]).absolute()
    if path.name != _NAME:
        path = Path(sys.executable).absolute().with_name(_NAME)
    if not path.exists():
        return _NAME  # as documents call it
    found = shutil.which(_NAME)
    if found is not None and Path(found).resolve() == path.resolve():
        return _NAME
    here = Path.cwd()
    if path.parent == here:
        return f"./{_NAME}"
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def typed(words: str) -> str:
    """A command of this program, as it is printed within a sentence."""
    return f"`{program()} {words}`"
