"""Answers that could be read in two ways are not read at all; no request follows on their line."""

import asyncio

import pytest

from gateway.backends.transport import Malformed, Timeouts, TransportError
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.scripted_backend import Script
from tests.transport_pair import LIMIT_BYTES, chat, pair

OK = "HTTP/1.1 200 OK\r\n"
CHUNKED = OK + "transfer-encoding: chunked\r\n\r\n"

ATTACKS = {
    "length and chunks": OK + "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": OK + "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "one length twice": OK + "content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "a list of lengths": OK + "content-length: 3, 3\r\n\r\nabc",
    "a signed length": OK + "content-length: +3\r\n\r\nabc",
    "a negative length": OK + "content-length: -3\r\n\r\nabc",
    "an empty length": OK + "content-length:\r\n\r\nabc",
    "a huge length": OK + "content-length: 99999999999999999999\r\n\r\nabc",
    "a space before the colon": OK + "content-length : 3\r\n\r\nabc",
    "chunks of gzip": OK + "transfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunks then identity": OK
    + "transfer-encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "an unknown coding": OK + "transfer-encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked twice": OK + "transfer-encoding: chunked\r\n" * 2 + "\r\n3\r\nabc\r\n0\r\n\r\n",
    "compressed": OK + "content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
    "a hexadecimal prefix": CHUNKED + "0x3\r\nabc\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + "-3\r\nabc\r\n0\r\n\r\n",
    "an overflowing chunk": CHUNKED + "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + "3\r\nabcd\r\n0\r\n\r\n",
    "chunks with bare line feeds": CHUNKED + "3\nabc\n0\n\n",
    "a length among the trailers": CHUNKED + "3\r\nabc\r\n0\r\ncontent-length: 9\r\n\r\n",
    "a folded header": OK + "x: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "a bare line feed in a header": OK + "x: a\n b\r\ncontent-length: 0\r\n\r\n",
    "a bare carriage return": OK + "x: a\rb\r\ncontent-length: 0\r\n\r\n",
    "a NUL in a header": OK + "x: a\x00\r\ncontent-length: 0\r\n\r\n",
    "bare line feeds": "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "another version": "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "a status of four digits": "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
    "status nought": "HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n",
    "a status outside the classes": "HTTP/1.1 999 OK\r\ncontent-length: 0\r\n\r\n",
    "no HTTP": "SSH-2.0-OpenSSH_9.2\r\n",
    "another protocol": "HTTP/1.1 101 Sure\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc",
    "a head without end": OK + "".join(f"x-{n}: {'y' * 1000}\r\n" for n in range(100)),
    "interim answers without end": "HTTP/1.1 103 Early\r\nx: y\r\n\r\n" * 4000,
    "one header without end": OK + "x: " + "y" * 100_000,
}


@ON_BOTH_LOOPS
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_ambiguous_answer_is_refused_and_its_connection_dropped(
    loop_factory: LoopFactory, attack: str
) -> None:
    async def story() -> None:
        async with pair(None, Script(raw=attack)) as p:
            with pytest.raises(Malformed) as told:
                await (await p.ask(chat())).read(LIMIT_BYTES)
            assert told.value.sent
            await p.deserted()
            answer = await p.ask(chat())
            assert (await answer.read(LIMIT_BYTES)).startswith(b'{"id"')

    run_on(loop_factory, story())


SURPLUS = {
    "a second answer": OK + "content-length: 2\r\n\r\n{}" + OK + "content-length: 4\r\n\r\nevil",
    "garbage": OK + "content-length: 2\r\n\r\n{}garbage",
    "a body where none may be": "HTTP/1.1 204 No\r\ncontent-length: 4\r\n\r\nevil",
}


@ON_BOTH_LOOPS
@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS.keys())
def test_bytes_after_an_answer_never_reach_the_next_request(
    loop_factory: LoopFactory, surplus: str
) -> None:
    async def story() -> None:
        async with pair(None, Script(raw=surplus)) as p:
            answer = await p.ask(chat())
            assert await answer.read(LIMIT_BYTES) in (b"{}", b"")
            answer = await p.ask(chat())
            assert (await answer.read(LIMIT_BYTES)).startswith(b'{"id"')
            assert p.backend.accepted == 2

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_words_out_of_turn_on_an_idle_connection_close_it(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair() as p:
            await (await p.ask(chat())).read(LIMIT_BYTES)
            (connection,) = p.backend.connections
            connection.speak((OK + "content-length: 4\r\n\r\nevil").encode())
            answer = await p.ask(chat())  # before the loop could read them
            assert (await answer.read(LIMIT_BYTES)).startswith(b'{"id"')
            assert p.backend.accepted == 2

    run_on(loop_factory, story())


GOOD = {
    "an answer after interim ones": (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n"
        + OK
        + "x: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"{}",
    ),
    "chunks with extensions and trailers": (
        CHUNKED + "1;a=b\r\n{\r\n1\r\n}\r\n0\r\nx-sum: 9\r\n\r\n",
        b"{}",
    ),
    "identity said aloud": (
        OK + "content-encoding: identity\r\ncontent-length: 2\r\n\r\n{}",
        b"{}",
    ),
}


@ON_BOTH_LOOPS
@pytest.mark.parametrize(("raw", "body"), GOOD.values(), ids=GOOD.keys())
def test_unusual_but_clear_answers_are_read(
    loop_factory: LoopFactory, raw: str, body: bytes
) -> None:
    async def story() -> None:
        async with pair(None, Script(raw=raw)) as p:
            answer = await p.ask(chat())
            assert answer.status == 200
            assert await answer.read(LIMIT_BYTES) == body
            assert answer.header(b"link") is None
            assert answer.header(b"x-sum") is None
            assert p.stats.idle == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_the_end_of_the_connection_ends_only_a_body_without_a_length(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(Script(close=True)) as p:
            for stream in (False, True):
                body = await (await p.ask(chat(stream=stream))).read(LIMIT_BYTES)
                assert body.endswith(b"data: [DONE]\n\n" if stream else b"}")
            await p.deserted()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_an_answer_split_at_every_byte_is_the_same_answer(loop_factory: LoopFactory) -> None:
    whole = (CHUNKED + "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nt: 1\r\n\r\n").encode()

    async def story() -> None:
        async with pair(Script(silent=True)) as p:
            for at in range(1, len(whole)):
                asking = asyncio.ensure_future(p.ask(chat()))
                await until(lambda: any(c.heard for c in p.backend.connections))
                (connection,) = p.backend.connections
                connection.speak(whole[:at])
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                connection.speak(whole[at:])
                answer = await asking
                assert await answer.read(LIMIT_BYTES) == b"hello world"
                connection.abort()
                await p.deserted()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_an_answer_before_the_request_was_read_is_given_but_its_connection_is_not_kept(
    loop_factory: LoopFactory,
) -> None:
    """A server may refuse a large body early; what is left of it must not stay on the line."""

    async def hurried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\n{}")
        await reader.read()
        writer.close()

    async def story() -> None:
        async with pair() as p:
            server = await asyncio.start_server(hurried, "127.0.0.1", 0, limit=1024)
            p.endpoint = type(p.endpoint)(
                "127.0.0.1", server.sockets[0].getsockname()[1], tls=False, base_path=""
            )
            answer = await p.ask(b"x" * 30_000_000, Timeouts(total_ms=10_000))
            assert answer.status == 413
            assert await answer.read(LIMIT_BYTES) == b"{}"
            assert p.stats.idle == 0
            server.close()
            await server.wait_closed()

    run_on(loop_factory, story())


def test_every_fault_is_a_transport_error() -> None:
    assert issubclass(Malformed, TransportError)
