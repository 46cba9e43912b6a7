"""gateway.stores.redis.connection: what leaves together at the end of a turn of the loop."""

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.stores.redis.connection import Connection, Reply, StoreUnavailable
from tests.running import run


class Paper(asyncio.Transport):
    """A transport that keeps each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self._closing = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self._closing = True


def connected() -> tuple[Connection, Paper]:
    wire, paper = Connection(), Paper()
    wire.connection_made(paper)
    return wire, paper


def sender(wire: Connection, word: bytes) -> Callable[[], None]:
    return lambda: wire.send(word, lambda _: None)


def test_what_is_sent_at_the_end_of_a_turn_leaves_in_one_write_and_in_order() -> None:
    async def story() -> None:
        wire, paper = connected()
        wire.soon(sender(wire, b"a"))
        wire.soon(sender(wire, b"b"))
        assert paper.writes == []
        await asyncio.sleep(0)
        assert paper.writes == [b"ab"]
        assert len(wire.waiting) == 2
        wire.soon(lambda: wire.soon(sender(wire, b"d")))
        wire.soon(sender(wire, b"c"))
        await asyncio.sleep(0)
        assert paper.writes == [b"ab", b"c"]
        await asyncio.sleep(0)
        assert paper.writes == [b"ab", b"c", b"d"]

    run(story())


def test_what_is_sent_in_between_leaves_at_once() -> None:
    async def story() -> None:
        wire, paper = connected()
        wire.soon(sender(wire, b"later"))
        wire.send(b"now", lambda _: None)
        assert paper.writes == [b"now"]
        await asyncio.sleep(0)
        assert paper.writes == [b"now", b"later"]

    run(story())


def test_one_that_fails_keeps_nobody_else_from_sending() -> None:
    async def story() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
        wire, paper = connected()
        wire.soon(sender(wire, b"a"))
        wire.soon(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
        wire.soon(sender(wire, b"b"))
        await asyncio.sleep(0)
        assert paper.writes == [b"a"]
        await asyncio.sleep(0)
        assert paper.writes == [b"a", b"b"]
        assert [type(said["exception"]) for said in complaints] == [ZeroDivisionError]

    run(story())


def test_what_was_held_when_the_connection_broke_is_told_as_lost() -> None:
    async def story() -> None:
        told: list[Reply] = []
        wire, paper = connected()
        wire.soon(lambda: wire.send(b"a", told.append))
        wire.soon(wire.abort)
        await asyncio.sleep(0)
        assert paper.writes == []
        assert told == []
        wire.connection_lost(None)
        assert [type(each) for each in told] == [StoreUnavailable]

    run(story())
