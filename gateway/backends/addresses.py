"""Where no backend lives: addresses that lead to a cloud's credentials, or to nobody in particular.

Loopback and private networks are allowed, because on-premises backends live there. An IPv4 address
that travels inside an IPv6 one counts as itself.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Metadata services outside the link-local networks.
_METADATA: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
    )
)
_NOWHERE: Final = ipaddress.ip_network("0.0.0.0/8")
_METADATA_NAMES: Final = frozenset(
    (
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.azure.internal",
        "metadata.goog",
        "metadata.google.internal",
    )
)
_ANY_ADDRESS_NAMES: Final = ("nip.io", "sslip.io", "xip.io")  # they resolve to what they spell

# How many bits stand behind the IPv4 address in what IPv6 carries it in.
_CARRIERS: Final = tuple(
    (ipaddress.IPv6Network(prefix), bits_after)
    for prefix, bits_after in (
        ("::/96", 0),
        ("::ffff:0:0/96", 0),
        ("::ffff:0:0:0/96", 0),
        ("64:ff9b::/96", 0),
        ("64:ff9b:1::/48", 0),
        ("2002::/16", 80),
        ("2001::/32", 64),
    )
)
_SPLIT: Final = ipaddress.IPv6Network("64:ff9b:1::/48")  # may also carry it around bits 64 to 71
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")  # also carries the client's, inverted


def acceptable(text: str) -> bool:
    """Whether a backend may be at this address. False for what is not an address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if address.is_loopback:
        return True
    return not any(_forbidden(each) for each in (address, *_carried(address)))


def kept(texts: Iterable[str]) -> list[str]:
    """The acceptable ones, each once, in their order."""
    return [text for text in dict.fromkeys(texts) if acceptable(text)]


def leads_astray(name: str) -> bool:
    """Whether a host name is known to be a metadata service's, or to stand for any address."""
    name = name.lower().removesuffix(".")
    if name in _METADATA_NAMES or name in _ANY_ADDRESS_NAMES:
        return True
    return name.endswith(tuple(f".{each}" for each in _ANY_ADDRESS_NAMES))


def _forbidden(address: _Address) -> bool:
    if address.is_link_local or address.is_unspecified or address.is_multicast:
        return True
    if address.version == 4 and (address.is_reserved or address in _NOWHERE):
        return True
    return any(address in network for network in _METADATA)


def _carried(address: _Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses inside an IPv6 address."""
    if address.version == 4:
        return []
    whole = int(address)
    found = [whole >> bits_after for network, bits_after in _CARRIERS if address in network]
    if address in _SPLIT:
        found.append((whole >> 64 & 0xFFFF) << 16 | whole >> 40 & 0xFFFF)
    if address in _TEREDO:
        found.append(~whole)
    return [ipaddress.IPv4Address(number & 0xFFFF_FFFF) for number in found]
