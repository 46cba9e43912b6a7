"""How often somebody may fail to prove who he is: by address, and by the token he claims to have.

An address has a burst of failures and then one each interval. A token that many addresses fail at
is under attack: until that is over, an address that failed has to wait after each failure. One that
never failed is always heard, so nobody is locked out of his own token from elsewhere; whoever was
let in from an address before is heard there as well, whatever his neighbours do.

Pure but for its own memory, which is bounded: what was least recently touched is forgotten.
"""

import ipaddress
from collections import OrderedDict
from typing import Final

BURST: Final = 10
INTERVAL_US: Final = 6_000_000
MOST_REMEMBERED: Final = 4_096
_IPV6_NETWORK: Final = 64  # what one subscriber has


class Failures:
    """Times are microseconds of a clock that never jumps. Every method takes the same time whatever
    it is asked about.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._due_us: OrderedDict[str, int] = OrderedDict()  # when all is forgiven, as GCRA's tat
        self._let_in: OrderedDict[bytes, None] = OrderedDict()

    def wait_us(self, address: str, public_id: str | None, now_us: int) -> int:
        """How long until the next attempt is heard; zero: now."""
        due_us = self._due_us.get(_address(address), now_us)
        spared_us = (BURST - 1) * INTERVAL_US
        if public_id is not None and self._debt_us(_token(public_id), now_us) > spared_us:
            spared_us = 0
        return max(0, due_us - now_us - spared_us)

    def failed(self, address: str, public_id: str | None, now_us: int) -> None:
        names = [_address(address)] if public_id is None else [_address(address), _token(public_id)]
        for name in names:
            due_us = max(self._due_us.get(name, now_us), now_us) + INTERVAL_US
            self._due_us[name] = min(due_us, now_us + 2 * BURST * INTERVAL_US)
            self._due_us.move_to_end(name)
        while len(self._due_us) > self._most:
            self._due_us.popitem(last=False)

    def was_let_in(self, mark: bytes) -> bool:
        """Whether this token was let in from this address; `mark` stands for both."""
        return mark in self._let_in

    def let_in(self, mark: bytes) -> None:
        self._let_in[mark] = None
        self._let_in.move_to_end(mark)
        while len(self._let_in) > self._most:
            self._let_in.popitem(last=False)

    def forget(self, mark: bytes) -> None:
        """The token is not let in any more."""
        self._let_in.pop(mark, None)

    def __len__(self) -> int:
        """How many addresses, tokens and marks are remembered."""
        return len(self._due_us) + len(self._let_in)

    def _debt_us(self, name: str, now_us: int) -> int:
        return self._due_us.get(name, now_us) - now_us


def _address(address: str) -> str:
    return f"address {network(address)}"


def _token(public_id: str) -> str:
    """Never the name of an address, whatever the client puts there."""
    return f"token {public_id}"


def network(address: str) -> str:
    """Whom an address belongs to: itself, or of IPv6 the network of one subscriber."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address  # of a unix socket, or none at all
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found.packed, _IPV6_NETWORK), strict=False))
