"""One signed message to somebody's webhook, by the same outbound rules as backends: no redirect is
followed, and no address that a backend may not have is connected to.
"""

import hashlib
import hmac
from typing import Final

from gateway.backends.endpoint import Endpoint, Timeouts
from gateway.backends.failures import TransportError
from gateway.backends.transport import Transport

SIGNATURE: Final = "x-meterhouse-signature"
DELIVERY: Final = "x-meterhouse-delivery"

_TIMEOUTS: Final = Timeouts(
    pool_ms=5_000, connect_ms=5_000, first_byte_ms=10_000, idle_ms=5_000, total_ms=15_000
)
_MOST_ANSWER_BYTES: Final = 64 * 1024


def signature(secret: str, at_s: int, body: bytes) -> str:
    """`t=<seconds since 1970>,v1=<HMAC-SHA-256 of "t.body" in hexadecimal>`. Who receives it
    compares in constant time, and refuses what is old.
    """
    signed = hmac.new(secret.encode(), b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={signed}"


class Sender:
    """The way out. It belongs to one event loop; nothing of a request ever goes through it."""

    def __init__(self) -> None:
        self._transport = Transport()

    async def close(self) -> None:
        await self._transport.close()

    async def send(
        self, url: str, secret: str, message_id: str, body: bytes, at_s: int
    ) -> str | None:
        """None once it is taken; else why not, in words without the secret. The receiver knows a
        message that comes again by its id.
        """
        headers = [
            (b"content-type", b"application/json"),
            (b"user-agent", b"meterhouse"),
            (DELIVERY.encode(), message_id.encode()),
            (SIGNATURE.encode(), signature(secret, at_s, body).encode()),
        ]
        try:
            target = Endpoint.parse(url, credential_id="webhook")
            path = "" if target.base_path else "/"
            answer = await self._transport.request(target, path, (), body, _TIMEOUTS, own=headers)
            try:
                await answer.read(_MOST_ANSWER_BYTES)
            finally:
                answer.abort()
        except (TransportError, ValueError) as fault:
            return f"{type(fault).__name__}: {fault}"[:300]
        if 200 <= answer.status < 300:
            return None
        return f"it answered {answer.status}"
