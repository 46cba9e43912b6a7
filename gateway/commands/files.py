"""Files that commands are given by name: read, or written as a whole, and refused in a sentence."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class FileError(Exception):
    """A file cannot be read or written. The message names it as it was typed."""


@contextlib.contextmanager
def whole(output: str) -> Iterator[IO[bytes]]:
    """To write to. It has the name only once it is all there: what fails leaves what was before.
    FileError.
    """
    named = Path(output)
    part = named.with_name(f"{named.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(named)
    except BaseException as fault:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(fault, OSError):
            raise FileError(f"cannot write {output}: {fault.strerror or fault}") from fault
        raise


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
