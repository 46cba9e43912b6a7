"""The connections clients make: how many there may be, and for how long one may not read.

A client that stops reading is given up, because its stream would keep a hold, a place at a backend
and buffers for as long as it likes. A connection that never asks anything is closed like an idle
one. Above the number that the process has descriptors for, a connection is refused rather than
left without one for its backend.
"""

import asyncio
import logging
from typing import Any, Final

from gateway.app.intake import Intake
from gateway.descriptors import most_exchanges
from gateway.errors import openai_error

BLOCKED_SECONDS: Final = 30.0
LEAST_TAKEN_BYTES: Final = 16 * 1024  # in that time; less is as good as nothing

_LOG: Final = logging.getLogger(__name__)
_FULL: Final = openai_error(
    "this process has as many connections as it can hold; retry shortly",
    "server_error",
    None,
    "overloaded",
)
_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)


class Inbound(Intake):
    """One client's connection."""

    blocked_seconds = BLOCKED_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watching: asyncio.TimerHandle | None = None
        self._untaken_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.connections) > most_exchanges():
            _LOG.warning("a connection is refused: %d are open", len(self.connections) - 1)
            self.transport.write(_REFUSAL)
            self.transport.close()
            return
        self.alarm.by(self.idle_since + self.keep_alive_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._calm()

    def _watch(self) -> None:
        self._untaken_bytes = self.transport.get_write_buffer_size()
        self._watching = self.loop.call_later(self.blocked_seconds, self._look)

    def _look(self) -> None:
        self._watching = None
        taken_bytes = self._untaken_bytes - self.transport.get_write_buffer_size()
        if taken_bytes >= LEAST_TAKEN_BYTES:
            self._watch()
            return
        _LOG.info("a client that takes no more of its answer is given up")
        self.transport.abort()

    def _calm(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
