"""What a worker holds of bodies on their way, and that it comes back however the reading ends."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from gateway.dataplane.arrival import read_head
from gateway.dataplane.bodies import Bodies, Room
from gateway.dataplane.envelope import CHAT
from gateway.dataplane.flow import Flow
from gateway.dataplane.hangup import ClientGone
from gateway.dataplane.reading import LargeBodies, Reading
from gateway.telemetry.record import TraceIds
from policies.decision import Deny, DenyCode
from tests.running import run

WHOLE = b'{"model":"chat","messages":[{"role":"user","content":"hello"}]}'
MOST_BODY_BYTES, ROOM_BYTES = 400_000, 800_000


class Client:
    """Sends what it is told to; its gateway waits for more until then."""

    def __init__(self, declared: int = -1) -> None:
        length = [(b"content-length", b"%d" % declared)] if declared >= 0 else []
        arrival = read_head({"headers": length})
        trace = TraceIds(trace_id=0, span_id=0, parent_span_id=0, sampled=False)
        self.flow = Flow(arrival=arrival, trace=trace, operation=CHAT, route_path="/")
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked = 0  # how often more was awaited

    def send(self, body: bytes, *, more: bool = True) -> None:
        self._sent.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self._sent.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Any:
        self.asked += 1
        return await self._sent.get()


class Desk:
    def __init__(self, large: LargeBodies) -> None:
        self.room = Room(ROOM_BYTES)
        self._bodies = Bodies(MOST_BODY_BYTES, self.room, large)

    def read(self, client: Client, key: str = "a") -> "asyncio.Task[Reading | Deny]":
        return asyncio.ensure_future(self._bodies.read(client.flow, key, client.receive))


@pytest.fixture
def desk() -> Iterator[Desk]:
    with closing(LargeBodies()) as large:
        yield Desk(large)


async def _turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_body_that_comes_whole_needs_no_room(desk: Desk) -> None:
    async def scenario() -> None:
        hog, client = Client(400_000), Client(len(WHOLE))
        reading = desk.read(hog)
        client.send(WHOLE, more=False)
        found = await desk.read(client)
        assert isinstance(found, Reading)
        assert found.envelope.model == "chat"
        assert client.flow.body == WHOLE
        reading.cancel()

    run(scenario())


def test_a_body_counts_as_its_head_declares_until_it_was_read(desk: Desk) -> None:
    async def scenario() -> None:
        body = WHOLE[:-1] + b" " * (300_000 - len(WHOLE)) + b"}"
        client = Client(len(body))
        reading = desk.read(client)
        client.send(body[:100_000])
        await _turns()
        assert desk.room.bytes == 300_000
        client.send(body[100_000:], more=False)
        assert isinstance(await reading, Reading)
        assert client.flow.body == body
        assert desk.room.bytes == 0

    run(scenario())


def test_what_was_not_declared_counts_as_it_comes(desk: Desk) -> None:
    async def scenario() -> None:
        client = Client()
        reading = desk.read(client)
        for size in (30_000, 60_000):
            client.send(b" " * 30_000)
            await _turns()
            assert desk.room.bytes == size
        client.send(WHOLE, more=False)
        assert isinstance(await reading, Reading)
        assert desk.room.bytes == 0

    run(scenario())


def test_what_a_key_may_have_under_way_is_a_quarter_or_one_body(desk: Desk) -> None:
    async def scenario() -> None:
        first = desk.read(Client(400_000))
        second = Client(100_000)
        refused = await desk.read(second)
        assert isinstance(refused, Deny)
        assert refused.code is DenyCode.OVERLOADED
        assert "this key" in refused.message
        assert refused.retry_after_ms is not None
        assert second.asked == 0  # not a byte of it was read

        others = [desk.read(Client(100_000), "b") for _ in range(3)]
        await _turns()
        assert [reading.done() for reading in others] == [False, False, True]
        assert desk.room.bytes == 600_000
        for reading in (first, *others):
            reading.cancel()
        await asyncio.gather(first, *others, return_exceptions=True)
        assert desk.room.bytes == 0
        later = desk.read(Client(400_000))
        await _turns()
        assert not later.done()
        later.cancel()

    run(scenario())


def test_what_all_have_under_way_is_bounded_while_it_comes(desk: Desk) -> None:
    async def scenario() -> None:
        held = [desk.read(Client(350_000), key) for key in "ab"]
        client = Client()
        growing = desk.read(client, "c")
        client.send(b" " * 90_000)
        await _turns()
        assert not growing.done()
        client.send(b" " * 90_000)
        refused = await growing
        assert isinstance(refused, Deny)
        assert (refused.code, refused.param) == (DenyCode.OVERLOADED, None)
        assert "this key" not in refused.message
        assert desk.room.bytes == 700_000
        for reading in held:
            reading.cancel()

    run(scenario())


@pytest.mark.parametrize("declared", [-1, 200_000])
@pytest.mark.parametrize("end", ["leaves", "cancelled", "too large", "not JSON"])
def test_room_comes_back_however_the_reading_ends(desk: Desk, declared: int, end: str) -> None:
    async def scenario() -> None:
        client = Client(declared)
        reading = desk.read(client)
        client.send(b"?" * 150_000)
        await _turns()
        assert desk.room.bytes >= 150_000
        if end == "leaves":
            client.leave()
            with pytest.raises(ClientGone):
                await reading
        elif end == "cancelled":
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        else:
            client.send(b"?" * (300_000 if end == "too large" else 1), more=False)
            refused = await reading
            assert isinstance(refused, Deny)
        assert desk.room.bytes == 0

    run(scenario())
