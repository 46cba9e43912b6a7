"""Prompts that begin alike go to one backend, as long as it has room: rendezvous hashing with
bounded loads.

Each prefix ranks the backends in an order of its own, so that one more or one less moves only its
share of the prefixes. Who has more than five quarters of the mean in flight is passed over.
"""

from collections.abc import Sequence
from typing import Final
from zlib import crc32

from policies.candidates import Candidate, Live

ALWAYS: Final = 4  # requests in flight that are no crowd yet


def affine(
    prefix: int, drawn: Sequence[int], eligible: Sequence[Candidate], seen: Sequence[Live]
) -> list[int]:
    """Places of equals as they were drawn, with the prefix's own backend first: the first of its
    order that has room. The least loaded always has.
    """
    in_flight = sum(seen[at].in_flight for at in drawn)
    bound = max(ALWAYS, -(-5 * (in_flight + 1) // (4 * len(drawn))))
    roomy = [at for at in drawn if seen[at].in_flight < bound]
    own = max(roomy, key=lambda at: _score(prefix, eligible[at]))
    return [own, *(at for at in drawn if at != own)]


def _score(prefix: int, candidate: Candidate) -> int:
    """A uniform number of 32 bits; the same for ever for this prefix and candidate."""
    mixed = crc32(f"{candidate.backend_id}\0{candidate.upstream_model}".encode())
    mixed ^= prefix * 0x9E3779B1 & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return mixed ^ mixed >> 16
