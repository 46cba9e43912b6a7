"""The listening sockets. Whoever binds them can hand them on: a restarted worker refuses nobody."""

import errno
import socket
from typing import Final

from gateway.settings import PREFIX, StartError

_BACKLOG: Final = 2048


def bind(host: str, port: int, variable: str) -> socket.socket:
    """A socket that listens already, so that early clients queue. `variable` is named in faults.

    StartError when the address is taken, not this machine's, or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else error.strerror
        raise StartError(
            f"cannot listen on {host}:{port} ({why}); choose another with {PREFIX}{variable}"
        ) from error
    sock.setblocking(False)
    return sock
