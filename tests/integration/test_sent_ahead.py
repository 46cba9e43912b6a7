"""Requests that a client sends before it has the answer to another."""

import asyncio

import pytest

from gateway.app.exchange import HIGH_WATER_BYTES
from gateway.app.line import MOST_AHEAD
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.strangers import Patient, serving

POST = b"POST /x HTTP/1.1\r\nhost: x\r\n"
NEXT = b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n"


@ON_BOTH_LOOPS
def test_requests_sent_ahead_are_answered_in_their_order(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(served=(served := Patient())) as (_, connect):
            client = await connect()
            for number in range(20):
                await client.send(
                    POST.replace(b"/x", b"/%d" % number) + b"content-length: 2\r\n\r\nab"
                )
            await until(lambda: served.begun == 1)
            served.may.set()
            said = b""
            while said.count(b"HTTP/1.1 200") < 20:
                said += await client.reader.read(65_536)
            paths = [part.partition(b"\r\n\r\n")[2] for part in said.split(b"HTTP/1.1 200 OK")[1:]]
            assert paths == [b"/%d" % number for number in range(20)]

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_no_more_requests_wait_than_may(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(served=(served := Patient())) as (_, connect):
            client = await connect()
            await client.send(NEXT * (MOST_AHEAD + 2))
            assert await client.closed()
            await until(lambda: not served.state.tasks and not served.state.connections)
            assert served.begun == served.gone == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
@pytest.mark.parametrize("requests", [1, 2, 4])
def test_whoever_is_answered_is_told_when_a_client_that_sent_ahead_leaves(
    loop_factory: LoopFactory, requests: int
) -> None:
    async def story() -> None:
        async with serving(served=(served := Patient())) as (_, connect):
            client = await connect()
            for _ in range(requests):
                await client.send(NEXT)
            await until(lambda: served.begun == 1)
            (line,) = served.state.connections
            await until(lambda: len(line._ahead) == requests - 1)
            client.writer.transport.abort()
            await until(lambda: served.gone == 1 and not served.state.tasks)
            assert served.begun == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_of_a_body_that_waits_its_turn_no_more_is_kept_than_of_any_other(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with serving(served=(served := Patient())) as (_, connect):
            client = await connect()
            size = 64 * 1024 * 1024
            await client.send(NEXT, POST + b"content-length: %d\r\n\r\n" % size)
            sending = asyncio.create_task(client.send(b"x" * size))
            await until(lambda: served.begun == 1)
            (line,) = served.state.connections
            await until(lambda: line.reading_paused)
            kept = len(line.latest._body)
            line.answering._line.resume_reading()  # as whoever waits for the answer's end does
            assert line.reading_paused
            assert HIGH_WATER_BYTES < kept < 16 * HIGH_WATER_BYTES
            served.may.set()
            await sending
            said = b""
            while said.count(b"HTTP/1.1 200") < 2:
                said += await client.reader.read(65_536)
            assert said.endswith(b"/x")

    run_on(loop_factory, story())
