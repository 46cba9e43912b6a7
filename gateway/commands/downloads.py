"""What the admin API answers as a file: to a file of a name, or to standard output."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.commands.remote import Remote


def save(
    remote: "Remote",
    path: str,
    output: str | None,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """To `output` only once it is all there. RemoteError, FileError."""
    from gateway.commands.files import whole

    if output is None:
        for part in remote.parts(path, headers, params):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return
    with whole(output) as file:
        size = sum(file.write(part) for part in remote.parts(path, headers, params))
    print(f"{output}: {size} bytes", file=sys.stderr)
