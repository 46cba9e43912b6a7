"""Application key -> Principal, from the snapshot. No I/O, no default principal, one answer for
every kind of wrong key: whoever guesses learns nothing about which keys exist.
"""

import hmac
import ipaddress
from typing import Final

from gateway import keyring
from gateway.dataplane.arrival import Arrival
from gateway.dataplane.snapshot import Principal, Snapshot
from policies.decision import Deny, DenyCode

_NO_KEY: Final = Deny(
    DenyCode.INVALID_API_KEY,
    "no API key: send it as `Authorization: Bearer mh_...` or `x-api-key: mh_...`",
)
_BAD_KEY: Final = Deny(
    DenyCode.INVALID_API_KEY,
    "the API key is not valid: it is mistyped, unknown, expired or revoked",
)
_NOT_FROM_HERE: Final = Deny(
    DenyCode.INVALID_API_KEY, "the API key may not be used from this address"
)


def authenticate(
    snapshot: Snapshot, peppers: keyring.Peppers, arrival: Arrival
) -> Principal | Deny:
    """The principal behind the secret that was presented, or why there is none."""
    if arrival.repeated:
        message = f"the header {arrival.repeated} is there more than once; send it once"
        return Deny(DenyCode.INVALID_REQUEST, message, param=arrival.repeated)
    if not arrival.secret:
        return _NO_KEY
    fingerprint = keyring.fingerprint(arrival.secret)
    principal = snapshot.recognised.get(fingerprint)
    if principal is None:
        principal = _verified(snapshot, peppers, arrival.secret)
        if principal is None:
            return _BAD_KEY
        snapshot.recognised[fingerprint] = principal
    if arrival.arrived_us >= principal.expires_at_us:
        return _BAD_KEY
    if principal.networks is not None and not _within(principal, arrival.client_host):
        return _NOT_FROM_HERE
    return principal


def _verified(snapshot: Snapshot, peppers: keyring.Peppers, secret: bytes) -> Principal | None:
    """Whose secret this is, by the digest that the database keeps of it."""
    presented = keyring.parse(secret)
    known = None if presented is None else snapshot.principal(presented.public_id)
    if presented is None or known is None:
        return None
    principal, digest, pepper_version = known
    digester = peppers.digester(pepper_version)
    if digester is None or not hmac.compare_digest(digester.digest(presented.secret), digest):
        return None
    return principal


def _within(principal: Principal, host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in principal.networks or ())
