"""Every server that keeps data of the store now, for those who look at each."""

import asyncio
from typing import Final

import msgspec

from gateway.stores.redis import slots
from gateway.stores.redis.address import StoreAddress
from gateway.stores.redis.connection import StoreUnavailable, ask_once
from gateway.stores.redis.sentinel import master
from gateway.stores.redis.slots import Claim

ANSWER_WITHIN_S: Final = 2.0
_EVERYTHING: Final = ((0, slots.SLOTS - 1),)


class Held(msgspec.Struct, frozen=True):
    """A server, and the spans of slots that it has."""

    server: StoreAddress
    spans: tuple[tuple[int, int], ...] = _EVERYTHING

    def holds(self, slot: int) -> bool:
        return any(first <= slot <= last for first, last in self.spans)


async def masters(address: StoreAddress) -> tuple[Held, ...]:
    """The server itself, a service's master, or each master of a cluster as the seeds that answer
    know them. Raises StoreUnavailable.
    """
    if address.kind == "sentinel":
        return (Held((await master(address)).address),)
    if address.kind == "server":
        return (Held(address),)
    told = await asyncio.gather(
        *(
            ask_once(address.server(*seed), ANSWER_WITHIN_S, "CLUSTER", "NODES")
            for seed in address.seeds
        ),
        return_exceptions=True,
    )
    claims = [
        claim
        for seed, answer in zip(address.seeds, told, strict=True)
        if isinstance(answer, bytes)
        for claim in slots.read(answer.decode(), seed, by_name=address.tls).claims
    ]
    by_node: dict[slots.Node, list[Claim]] = {}
    for claim in slots.merged((), claims):
        by_node.setdefault(claim.node, []).append(claim)
    if not by_node:
        faults = [str(answer) for answer in told if isinstance(answer, StoreUnavailable)]
        raise StoreUnavailable(
            f"no server of the cluster says who its masters are: {'; '.join(dict.fromkeys(faults))}"
        )
    return tuple(
        Held(address.server(*node), tuple((one.first, one.last) for one in of))
        for node, of in sorted(by_node.items())
    )
