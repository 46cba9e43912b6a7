"""redis-py for what is not hot: jobs, the bus, leases, reads of the admin API."""

from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.stores.redis.address import parse

CONNECT_WITHIN_S: Final = 2.0
ANSWER_WITHIN_S: Final = 10.0  # above the longest blocking read


def open_client(url: str) -> Redis:
    """A client that never retries by itself: whether to send a write twice is ours to decide.

    Connects on first need; raises AddressError for an URL that cannot be used.
    """
    address = parse(url)
    return Redis(
        host=address.host,
        port=address.port,
        unix_socket_path=address.path,
        username=address.username,
        password=address.password,
        db=address.database,
        ssl=address.tls,
        ssl_ca_certs=address.ca_file,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_WITHIN_S,
        socket_timeout=ANSWER_WITHIN_S,
    )
