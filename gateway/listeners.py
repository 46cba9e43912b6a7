"""The listening sockets. Whoever binds them can hand them on: a restarted worker refuses nobody."""

import errno
import socket
from typing import Final

from gateway.settings import PREFIX, StartError

BACKLOG: Final = 4096  # clients that may queue while a loop turns; the kernel may allow fewer
UNSENT_BYTES: Final = 128 * 1024  # what the kernel keeps for a client that does not read


def bind(host: str, port: int, variable: str) -> socket.socket:
    """A socket that listens already, so that early clients queue. `variable` is named in faults.

    StartError when the address is taken, not this machine's, or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        _keep_little_unsent(sock)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else error.strerror
        raise StartError(
            f"cannot listen on {host}:{port} ({why}); choose another with {PREFIX}{variable}"
        ) from error
    sock.setblocking(False)
    return sock


def _keep_little_unsent(sock: socket.socket) -> None:
    """Accepted connections inherit it. Without it the kernel takes megabytes for a client that does
    not read, and whether one still takes anything shows only once a third of them has gone.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)
