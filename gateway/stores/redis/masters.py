"""Every server that keeps data of the store now, for those who look at each."""

import asyncio
from typing import Final

from gateway.stores.redis import slots
from gateway.stores.redis.address import StoreAddress
from gateway.stores.redis.connection import StoreUnavailable, ask_once
from gateway.stores.redis.sentinel import master

ANSWER_WITHIN_S: Final = 2.0


async def masters(address: StoreAddress) -> tuple[StoreAddress, ...]:
    """The server itself, a service's master, or each master of a cluster as the seeds that answer
    know them. Raises StoreUnavailable.
    """
    if address.kind == "sentinel":
        return ((await master(address)).address,)
    if address.kind == "server":
        return (address,)
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
    nodes = {claim.node for claim in slots.merged((), claims)}
    if not nodes:
        raise StoreUnavailable("no server of the cluster says who its masters are")
    return tuple(address.server(*node) for node in sorted(nodes))
