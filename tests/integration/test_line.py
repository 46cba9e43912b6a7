"""What is sent to a listener to be misread, and what is done to its connections."""

import asyncio
import logging
from itertools import pairwise
from typing import Any

import pytest

from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.strangers import Client, Patient, Server, serving

POST = b"POST /x HTTP/1.1\r\nhost: x\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
TWO_SIZES = [
    pytest.param(POST + head + b"\r\n" + body + NEXT, id=name)
    for name, head, body in (
        (
            "chunked and a length",
            b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
            b"0\r\n\r\n",
        ),
        (
            "a length and chunked",
            b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
            b"0\r\n\r\n",
        ),
        ("two lengths", b"content-length: 4\r\ncontent-length: 5\r\n", b"abcde"),
        ("one length twice", b"content-length: 4\r\ncontent-length: 4\r\n", b"abcd"),
        ("a list of lengths", b"content-length: 4, 4\r\n", b"abcd"),
        ("a signed length", b"content-length: +4\r\n", b"abcd"),
        ("a negative length", b"content-length: -4\r\n", b"abcd"),
        ("a hexadecimal length", b"content-length: 0x4\r\n", b"abcd"),
        ("a length past all numbers", b"content-length: 99999999999999999999\r\n", b"abcd"),
        ("no length", b"content-length: \r\n", b"abcd"),
        ("chunked, not last", b"transfer-encoding: chunked, identity\r\n", b"0\r\n\r\n"),
        ("another coding", b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n"),
        ("a blank before the colon", b"content-length : 4\r\n", b"abcd"),
        ("a folded line", b"x: a\r\n content-length: 4\r\n", b"abcd"),
        ("a bare line feed", b"x: a\ncontent-length: 4\r\n", b"abcd"),
        ("a bare carriage return", b"x: a\rcontent-length: 4\r\n", b"abcd"),
        ("a nul", b"x: a\0content-length: 4\r\n", b"abcd"),
        ("a line without a name", b": a\r\n", b""),
        ("a line without a colon", b"content-length 4\r\n", b"abcd"),
    )
]
BAD_CHUNKS = [b"-1\r\n", b"g\r\n", b"\r\n", b" 1\r\na\r\n", b"0x1\r\na\r\n", b"f" * 17 + b"\r\n"]
BAD_CHUNKS += [b"1\r\nab\r\n", b"1\na\r\n", b"1 \r\na\r\n", b"2\r\na\r\n0\r\n\r\n"]


def chunked(*bodies: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies)


class Stream(Server):
    """Answers in pieces, at once where that can be, and says no length."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        self.seen.append({"path": scope["path"]})
        write = scope["extensions"]["meterhouse.at_once"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["method"] != "HEAD":
            for piece in (b"one", b"two"):
                if not write(piece):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"three"})


@ON_BOTH_LOOPS
@pytest.mark.parametrize("sent", TWO_SIZES)
def test_a_request_of_two_sizes_hides_no_other(loop_factory: LoopFactory, sent: bytes) -> None:
    async def story() -> None:
        async with serving() as (served, connect):
            client = await connect()
            await client.send(sent)
            status, _ = await client.answer()
            assert status in (400, 501, 0)
            assert await client.closed()
            assert served.seen == []
            await until(lambda: not served.state.tasks)

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
@pytest.mark.parametrize("chunk", BAD_CHUNKS)
def test_a_bad_chunk_ends_the_connection(loop_factory: LoopFactory, chunk: bytes) -> None:
    async def story() -> None:
        for sent in ((CHUNKED + chunk + NEXT,), (CHUNKED, b"1\r\na\r\n", chunk, NEXT)):
            async with serving() as (served, connect):
                client = await connect()
                await client.send(*sent, pause=0.01)
                status, _ = await client.answer()
                assert status in (400, 0)
                assert await client.closed()
                assert served.seen == []
                await until(lambda served=served: not served.state.tasks)  # type: ignore[misc]

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_client_may_leave_at_any_byte(loop_factory: LoopFactory) -> None:
    """Of two requests sent ahead, the first in chunks: nothing is left of either."""
    sent = CHUNKED + chunked(b"abc", b"d") + b"0\r\n\r\n" + POST + b"content-length: 3\r\n\r\nxyz"

    async def story() -> None:
        async with serving(served=(served := Stream())) as (_, connect):
            for size in range(len(sent) + 1):
                client = await connect()
                client.writer.write(sent[:size])
                if size % 2:
                    await client.writer.drain()
                    await asyncio.sleep(0)
                client.writer.close()
            await until(lambda: not served.state.tasks and not served.state.connections)
            client = await connect()
            await client.send(sent)
            said = b""
            while said.count(b"0\r\n\r\n") < 2:
                said += await client.reader.read(65_536)

    run_on(loop_factory, story())


class Refusing(Server):
    """Answers without having read anything, once there is more than it keeps of a body."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        (line,) = self.state.connections
        await until(lambda: line.reading_paused)
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"less"})


@ON_BOTH_LOOPS
def test_who_has_an_answer_may_send_the_rest_of_what_nobody_reads(
    loop_factory: LoopFactory,
) -> None:
    """Most clients read an answer once they have sent all of the request."""

    async def story() -> None:
        async with serving(served=Refusing()) as (_, connect):
            client = await connect()
            size = 16 * 1024 * 1024
            await client.send(POST + b"content-length: %d\r\n\r\n" % size, b"x" * size)
            assert (await client.reader.readline()).startswith(b"HTTP/1.1 413")

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_an_older_client_gets_its_stream_without_chunks(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(served=Stream()) as (_, connect):
            client = await connect()
            await client.send(b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" + NEXT)
            head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
            assert body == b"onetwothree"
            assert b"chunked" not in head
            assert b"connection: close" in head

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_head_gets_a_head(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(served=Stream()) as (_, connect):
            client = await connect()
            await client.send(b"HEAD /x HTTP/1.1\r\nhost: x\r\n\r\n", NEXT)
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\n\r\n"
            assert b"chunked" in await client.reader.readuntil(b"\r\n\r\n")
            said = await client.reader.readuntil(b"0\r\n\r\n")
            assert said == chunked(b"one", b"two", b"three") + b"0\r\n\r\n"

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_another_protocol_is_not_spoken(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        asked = POST + b"content-length: 2\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nab"
        for late in (b"", NEXT):
            async with serving(served=(served := Patient())) as (_, connect):
                client = await connect()
                await client.send(asked + NEXT)
                await until(lambda served=served: served.begun == 1)  # type: ignore[misc]
                await client.send(late)
                served.may.set()
                said = await client.reader.read()
                assert said.count(b"HTTP/1.1 ") == 1
                assert b"connection: close" in said
                assert served.begun == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
@pytest.mark.parametrize("size", [0, 3, 200_000])
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_who_would_like_another_protocol_is_heard_to_the_end_in_this_one(
    loop_factory: LoopFactory, size: int, pieces: int
) -> None:
    """As the HTTP client of Java asks, of every server that has not told it better."""
    wish = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
    sized = POST + wish + b"content-length: %d\r\n\r\n" % size + b"a" * size
    in_chunks = POST + wish + b"transfer-encoding: chunked\r\n\r\n"
    in_chunks += (chunked(b"a" * size) if size else b"") + b"0\r\n\r\n"

    async def story() -> None:
        async with serving() as (served, connect):
            for sent in (sized, in_chunks, NEXT + sized, sized + NEXT, in_chunks + b"\x01\x02"):
                client = await connect()
                cut = [0, len(sent) - 3, len(sent)] if pieces == 2 else [0, 100, 300, len(sent)]
                cut = [0, len(sent)] if pieces == 1 else cut
                sending = asyncio.create_task(
                    client.send(*(sent[a:b] for a, b in pairwise(cut)), pause=0.01)
                )
                if sent.startswith(NEXT):
                    assert (await client.answer())[1]["size"] == 0
                assert (await client.answer())[1]["size"] == size
                assert await client.closed()
                await sending
            assert len(served.seen) == 6
            await until(lambda: not served.state.tasks and not served.state.connections)

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
@pytest.mark.parametrize("chunk", BAD_CHUNKS)
def test_a_bad_chunk_is_bad_in_any_protocol(loop_factory: LoopFactory, chunk: bytes) -> None:
    wish = b"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n\r\n"

    async def story() -> None:
        for sent in ((POST + wish + chunk + NEXT,), (POST + wish, b"1\r\na\r\n", chunk, NEXT)):
            async with serving() as (served, connect):
                client = await connect()
                await client.send(*sent, pause=0.01)
                assert (await client.answer())[0] in (400, 0)
                assert await client.closed()
                assert served.seen == []

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_who_asks_whether_to_go_on_is_told_to_only_if_somebody_reads(
    loop_factory: LoopFactory,
) -> None:
    expecting = POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n"

    async def first_line(client: Client) -> bytes:
        return await client.reader.readline()

    async def story() -> None:
        async with serving() as (served, connect):
            client = await connect()
            await client.send(expecting)
            assert await first_line(client) == b"HTTP/1.1 100 Continue\r\n"
            assert await first_line(client) == b"\r\n"
            await client.send(b"ab")
            assert (await client.answer())[0] == 200
            await client.send(expecting + b"ab")  # it did not wait
            assert await first_line(client) == b"HTTP/1.1 200 OK\r\n"
            served.refuse = True  # to read
            client = await connect()
            await client.send(expecting)
            assert await first_line(client) == b"HTTP/1.1 200 OK\r\n"

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\nset-cookie: b")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\0b")],
        [(b"x: y", b"a")],
        [(b"", b"a")],
        [(b"content-length", b"1"), (b"content-length", b"2")],
        [(b"transfer-encoding", b"chunked")],
        [(b"content-length", b"2")],
        [(b"content-length", b"4")],
    ],
)
def test_an_answer_that_could_be_misread_is_not_sent(
    loop_factory: LoopFactory,
    headers: list[tuple[bytes, bytes]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Careless(Server):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"abc"})

    async def story() -> None:
        async with serving(served=Careless()) as (_, connect):
            client = await connect()
            await client.send(NEXT)
            said = await client.reader.read()
            assert said.startswith(b"HTTP/1.1 500 ")
            assert said.endswith(b"\r\n\r\nInternal Server Error")

    with caplog.at_level(logging.CRITICAL):
        run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_an_answer_that_is_left_is_cut_and_not_ended(loop_factory: LoopFactory) -> None:
    class Fails(Server):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            if scope["path"] == "/fails":
                raise ValueError("on purpose")

    async def story() -> None:
        async with serving(served=Fails()) as (_, connect):
            for path in (b"/fails", b"/leaves"):
                client = await connect()
                await client.send(NEXT.replace(b"/smuggled", path))
                said = await client.reader.read()
                assert said.endswith(chunked(b"abc"))

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_half_a_connection_is_no_connection(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(served=(served := Patient())) as (_, connect):
            client = await connect()
            await client.send(NEXT)
            await until(lambda: served.begun == 1)
            client.writer.write_eof()
            await until(lambda: served.gone == 1)

    run_on(loop_factory, story())
