"""Asks an engine for the load it publishes, and for nothing else: no credential goes along, nothing
is sent but the question, no redirect is followed, and a page is bounded in size and time.
"""

from typing import Final

from gateway.backends.endpoint import Endpoint, Timeouts
from gateway.backends.engines import MOST_BYTES, gauges
from gateway.backends.failures import TransportError
from gateway.backends.transport import Transport
from policies.candidates import Gauges

SILENT_US: Final = 300_000_000  # until one that publishes nothing is asked again
AWAY_US: Final = 10_000_000  # until one that did not answer is
_PATIENCE: Final = Timeouts(
    pool_ms=1_000, connect_ms=1_000, first_byte_ms=1_500, idle_ms=1_500, total_ms=2_000
)


class Lookout:
    """Belongs to one event loop; has connections of its own, one to a backend."""

    def __init__(self) -> None:
        self._transport = Transport(max_connections=1)

    async def look(self, base_url: str) -> Gauges | int:
        """What it says; or for how many microseconds it need not be asked."""
        try:
            answer = await self._transport.request(
                page_of(base_url), "/metrics", (), b"", _PATIENCE, method="GET"
            )
            try:
                if answer.status != 200:
                    return SILENT_US
                return gauges(await answer.read(MOST_BYTES)) or SILENT_US
            finally:
                answer.abort()
        except TransportError:
            return AWAY_US

    async def close(self) -> None:
        await self._transport.close()


def page_of(base_url: str) -> Endpoint:
    """Where an engine publishes: beside its `/v1`, which is all a credential is for."""
    place = Endpoint.parse(base_url, credential_id="metrics")
    path = place.base_path.removesuffix("/v1")
    return Endpoint(place.host, place.port, place.tls, path, place.credential_id)
