"""The channels to a cluster: one to each master, and for each tag the way to the one it is on now.

Whether a call took effect stays known. MOVED is said before anything runs: the call is refused as
not done and who holds what is looked up at once. It is not sent on as it is, for an admission bears
the epoch of the very process it is meant for, and another may have an older copy of the state. A
server that is lost, or that is master no more, may have carried out what it was sent: its
connection is given up and its calls are told that their outcome is unknown. ASK is not followed: a
script reads keys that it derives, and during a migration key by key some of those would still be on
the other server, seemingly absent.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Final

import hiredis

from gateway.stores.redis import slots
from gateway.stores.redis.address import StoreAddress
from gateway.stores.redis.channel import Channel, Link, Reply, StoreUnavailable
from gateway.stores.redis.connection import ask_once
from gateway.stores.redis.slots import Claim, Node, View

LOOK_EVERY_S: Final = 5.0
LOOK_AGAIN_S: Final = 0.1  # while a master is out of reach
LEAST_BETWEEN_S: Final = 0.02
ANSWER_WITHIN_S: Final = 0.5
ASKED_AT_ONCE: Final = 3
PARTLY_AFTER_S: Final = 2.0  # a shard that is down must not keep the others' tenants waiting
MOST_MOVES: Final = 3
LOOKED_WITHIN_S: Final = 1.0
_LOOK_AFTER: Final = frozenset({"MOVED", "ASK", "CLUSTERDOWN", "READONLY", "MASTERDOWN"})


class Route(Link):
    """The way to one slot, wherever it is served now."""

    def __init__(self, cluster: "Cluster", slot: int) -> None:
        self._cluster = cluster
        self._slot = slot

    @property
    def up(self) -> bool:
        channel = self._cluster.serving(self._slot)
        return channel is not None and channel.up

    @property
    def run_id(self) -> str:
        channel = self._cluster.serving(self._slot)
        return channel.run_id if channel is not None else ""

    @property
    def since_us(self) -> int:
        channel = self._cluster.serving(self._slot)
        return channel.since_us if channel is not None else 0

    def send(self, command: bytes, on_reply: Callable[[Reply], None]) -> None:
        channel = self._cluster.serving(self._slot)
        if channel is None:
            self._cluster.look()
            raise StoreUnavailable("no server of the cluster serves this tenant's slot")
        try:
            channel.send(command, partial(self._answered, on_reply))
        except StoreUnavailable:
            self._cluster.look()
            raise

    def soon(self, send: Callable[[], None]) -> None:
        channel = self._cluster.serving(self._slot)
        if channel is None:
            asyncio.get_running_loop().call_soon(send)
        else:
            channel.soon(send)

    def suspect(self) -> None:
        self._cluster.look()
        channel = self._cluster.serving(self._slot)
        if channel is not None:
            channel.suspect()

    async def ask(self, *words: str | bytes | int) -> Reply:
        for _ in range(MOST_MOVES):
            try:
                return await super().ask(*words)
            except StoreUnavailable as fault:
                if not (
                    isinstance(fault.__cause__, hiredis.ReplyError)
                    and str(fault.__cause__).startswith("MOVED")
                ):
                    raise
            await self._cluster.looked()
        return await super().ask(*words)

    def _answered(self, on_reply: Callable[[Reply], None], reply: Reply) -> None:
        if isinstance(reply, Exception) and (
            not isinstance(reply, hiredis.ReplyError) or str(reply).partition(" ")[0] in _LOOK_AFTER
        ):
            self._cluster.look()
        on_reply(reply)


class Cluster:
    """Every master's channel, and who holds which slot, looked up again when anything is amiss."""

    def __init__(self, address: StoreAddress, on_up: Callable[[], None]) -> None:
        self._address = address
        self._on_up = on_up
        self._claims: tuple[Claim, ...] = ()
        self._known: set[Node] = set(address.seeds)
        self._channels: dict[Node, Channel] = {}
        self._gone: set[Channel] = set()  # of servers that are masters no more, being closed
        self._serving: dict[int, Channel | None] = {}  # of the slots asked for
        self._routes: dict[str, Route] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._news = asyncio.Event()
        self._told = asyncio.Event()

    @property
    def up(self) -> bool:
        return any(channel.up for channel in self._channels.values())

    @property
    def waiting(self) -> int:
        return sum(channel.waiting for channel in self._channels.values())

    def of(self, tag: str) -> Link:
        route = self._routes.get(tag)
        if route is None:
            route = self._routes[tag] = Route(self, slots.slot_of(tag))
        return route

    def serving(self, slot: int) -> Channel | None:
        """The channel to the master that holds this slot, as far as we know."""
        if slot not in self._serving:
            node = slots.owner(self._claims, slot)
            self._serving[slot] = self._channels.get(node) if node is not None else None
        return self._serving[slot]

    def look(self) -> None:
        """Find out soon who holds what."""
        self._look.set()

    async def looked(self) -> None:
        """Returns when that was found out, or could not be."""
        self.look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOKED_WITHIN_S):
                self._told.clear()
                await self._told.wait()

    async def open(self, within_s: float) -> None:
        """Returns when every master is connected, or before long when some are."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_looking())
        try:
            async with asyncio.timeout(min(within_s, PARTLY_AFTER_S)):
                await self._until(lambda: self._complete)
        except TimeoutError:
            try:
                async with asyncio.timeout(max(within_s - PARTLY_AFTER_S, 0)):
                    await self._until(lambda: self.up)
            except TimeoutError:
                raise StoreUnavailable(
                    f"no connection to the cluster within {within_s:g} s"
                ) from None

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        for channel in (*self._channels.values(), *self._gone):
            await channel.close()
        self._channels.clear()
        self._serving.clear()

    async def caught_up(self) -> None:
        connected = [channel for channel in self._channels.values() if channel.up]
        if not connected:
            raise StoreUnavailable("not connected to the cluster")
        await asyncio.gather(*(channel.call("PING") for channel in connected))

    @property
    def _complete(self) -> bool:
        return bool(self._channels) and all(each.up for each in self._channels.values())

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._news.clear()
            await self._news.wait()

    async def _keep_looking(self) -> None:
        while True:
            self._look.clear()
            views = await self._ask_around()
            if views:
                await self._take(views)
            self._told.set()
            calm = bool(views) and self._complete
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S if calm else LOOK_AGAIN_S):
                    await self._look.wait()
            await asyncio.sleep(LEAST_BETWEEN_S)

    async def _ask_around(self) -> list[View]:
        """What some servers say, those first that we can reach."""
        nodes = list(self._known)
        random.shuffle(nodes)
        nodes.sort(key=lambda node: node not in self._channels or not self._channels[node].up)
        for start in range(0, len(nodes), ASKED_AT_ONCE):
            asked = nodes[start : start + ASKED_AT_ONCE]
            answers = await asyncio.gather(*(self._view(node) for node in asked))
            if found := [view for view in answers if view is not None and view.claims]:
                return found
        return []

    async def _view(self, node: Node) -> View | None:
        try:
            answer = await ask_once(
                self._address.server(*node), ANSWER_WITHIN_S, "CLUSTER", "NODES"
            )
            return slots.read(answer.decode(), node, by_name=self._address.tls)
        except (StoreUnavailable, ValueError, AttributeError):
            return None

    async def _take(self, views: list[View]) -> None:
        """Serve by these from now on. What a server is no longer master of is not waited for."""
        kept = [one for one in self._claims if (at := self._channels.get(one.node)) and at.up]
        claims = slots.merged(kept, [claim for view in views for claim in view.claims])
        self._known = {*self._address.seeds, *(node for view in views for node in view.nodes)}
        if claims == self._claims:
            return
        self._claims = claims
        masters = {claim.node for claim in claims}
        gone = {self._channels.pop(node) for node in self._channels.keys() - masters}
        self._gone |= gone
        for node in masters - self._channels.keys():
            channel = Channel(self._address.server(*node), self._came_up)
            self._channels[node] = channel
            channel.start()
        self._serving.clear()
        for channel in gone:
            await channel.close()
            self._gone.discard(channel)
        self._came_up()

    def _came_up(self) -> None:
        self._news.set()
        self._on_up()
