"""From a name to an open socket: the address is checked before the first packet goes there."""

import asyncio
import ipaddress
import socket
import ssl

from gateway.backends import addresses
from gateway.backends.endpoint import Endpoint


async def connect(
    loop: asyncio.AbstractEventLoop,
    endpoint: Endpoint,
    tls: ssl.SSLContext | None,
    protocol: asyncio.Protocol,
) -> None:
    """Connects the protocol to the first address of the endpoint that answers. OSError when none
    does, or when none is one that a backend may have.
    """
    refused: list[str] = []
    for address in await _addresses(loop, endpoint):
        try:
            await loop.create_connection(
                lambda: protocol,
                address,
                endpoint.port,
                ssl=tls,
                server_hostname=endpoint.host if tls else None,
            )
        except ssl.SSLError:
            raise
        except OSError as fault:
            refused.append(str(fault))
        else:
            return
    raise OSError("; ".join(refused))


async def _addresses(loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> list[str]:
    """Those that a backend may have, in the resolver's order. OSError when there is none."""
    if _is_address(endpoint.host):
        found = [endpoint.host]
    else:
        answers = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        found = [str(answer[4][0]) for answer in answers]
    kept = addresses.kept(found)
    if not kept:
        raise OSError(f"{endpoint.host} is at {', '.join(found)}, where no backend may be")
    return kept


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
