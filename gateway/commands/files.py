"""Files that commands are given by name: read, or written as a whole, and refused in a sentence."""

import contextlib
import json
from pathlib import Path
from typing import Any


class FileError(Exception):
    """A file cannot be read or written. The message names it as it was typed."""


def write_whole(output: str, content: bytes) -> None:
    """Only once it is all there: what fails leaves what was before. FileError."""
    whole = Path(output)
    part = whole.with_name(f"{whole.name}.part")
    try:
        part.write_bytes(content)
        part.replace(whole)
    except OSError as fault:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise FileError(f"cannot write {output}: {fault.strerror or fault}") from fault


def read_json(file: str) -> Any:
    """FileError, with the line where it is no JSON."""
    try:
        return json.loads(Path(file).read_bytes())
    except OSError as fault:
        raise FileError(f"cannot read {file}: {fault.strerror or fault}") from fault
    except json.JSONDecodeError as fault:
        raise FileError(f"{file} is no JSON: line {fault.lineno}: {fault.msg}") from fault
    except UnicodeDecodeError as fault:
        raise FileError(f"{file} is no text: {fault.reason}") from fault
