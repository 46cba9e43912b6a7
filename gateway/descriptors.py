"""How many sockets this process may hold, and what follows for how many it serves at once."""

import resource
from typing import Final

MOST_WANTED: Final = 65_536
_RESERVED: Final = 256  # stores, spool, database, telemetry, listeners, and room to reload
_SECOND_BEST: Final = 10_240  # what macOS grants where its hard limit promises more


def raise_limit() -> int:
    """Raises the soft limit as far as the system allows and we have use for; answers it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (MOST_WANTED, _SECOND_BEST):
        allowed = min(wanted, _number(hard))
        if allowed <= _number(soft):
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        except (ValueError, OSError):
            continue
        break
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def most_exchanges() -> int:
    """How many clients can be served at once: each needs a socket, and one to its backend."""
    limit = _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return max(1, (min(limit, MOST_WANTED) - _RESERVED) // 2)


def _number(limit: int) -> int:
    return MOST_WANTED if limit == resource.RLIM_INFINITY else limit
