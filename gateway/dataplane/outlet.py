"""Pieces of a stream to its client without a wait.

ASGI's `send` is a coroutine, so each piece would have to wake the one that serves the request. Our
server offers, in the scope of a request, to write a piece of a body at once instead. What it does
not take, since the answer has not begun or the client is behind, goes by `send`, which waits: the
same bytes in the same order.
"""

from collections.abc import Callable
from typing import Final

from litestar.types import HTTPScope

EXTENSION: Final = "meterhouse.at_once"

AtOnce = Callable[[bytes], bool]  # whether the piece was taken; False: it must go by `send`


def at_once(scope: HTTPScope) -> AtOnce:
    """What the server offers; one that offers nothing takes nothing."""
    offered: AtOnce = (scope.get("extensions") or {}).get(EXTENSION, not_yet)  # type: ignore[assignment]
    return offered


def not_yet(_: bytes) -> bool:
    """Takes nothing."""
    return False
