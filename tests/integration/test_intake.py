"""What strangers may send before anybody knows who they are: bounded in size, number and time."""

import asyncio

import pytest

from gateway.app.inbound import Inbound
from gateway.app.intake import HEAD_BYTES, MOST_HEADERS
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on
from tests.strangers import serving

GET = b"GET /x HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: x\r\n"
MIB = 1 << 20


class Hasty(Inbound):
    head_seconds = 0.5
    pause_seconds = 1.0


def padded(size: int) -> bytes:
    """A GET whose head has this size."""
    return GET + b"x: " + b"a" * (size - len(GET) - 7) + b"\r\n\r\n"


@ON_BOTH_LOOPS
def test_a_head_up_to_the_limit_passes_in_any_number_of_pieces(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving() as (server, connect):
            client = await connect()
            whole = padded(HEAD_BYTES)
            for pieces in (
                [whole],
                [whole[:30_000], whole[30_000:]],
                [whole[:-1], whole[-1:]],
                [whole[:-3], whole[-3:] + POST + b"content-length: 3\r\n\r\nabc"],
            ):
                await client.send(*pieces, pause=0.01)
                assert (await client.answer())[0] == 200
            assert await client.answer() == (200, server.seen[-1])
            assert server.seen[-1]["size"] == 3

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([padded(HEAD_BYTES + 1)], id="one byte"),
        pytest.param([padded(HEAD_BYTES + 1)[:-1], b"\n"], id="one byte, later"),
        pytest.param([padded(3 * MIB)], id="3 MiB"),
        pytest.param([GET, *[b"x: " + b"a" * MIB] * 60], id="60 MiB value"),
        pytest.param([GET, *[b"x: " + b"a" * MIB + b"\r\n"] * 60], id="60 headers of 1 MiB"),
        pytest.param([b"GET /" + b"a" * MIB, *[b"a" * MIB] * 60], id="60 MiB of path"),
        pytest.param([GET + b"x: 1\r\n" * (MOST_HEADERS + 1) + b"\r\n"], id="101 headers"),
        pytest.param([GET, *[b"x: 1\r\n" * 4_000] * 500], id="headers without end"),
    ],
)
def test_a_head_past_a_limit_is_refused_and_the_connection_closed(
    loop_factory: LoopFactory, pieces: list[bytes]
) -> None:
    async def story() -> None:
        async with serving() as (server, connect):
            client = await connect()
            sending = asyncio.create_task(client.send(*pieces))
            status, body = await client.answer()
            assert status in (431, 0)  # 0: it was still sending, and its own kernel threw it away
            assert status == 0 or body["error"]["code"] == "invalid_request"
            assert await client.closed()
            await sending
            assert server.seen == []

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_as_many_headers_as_are_allowed_pass(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving() as (_, connect):
            client = await connect()
            await client.send(GET + b"x: 1\r\n" * (MOST_HEADERS - 1) + b"\r\n")
            assert (await client.answer())[0] == 200

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_head_that_comes_byte_by_byte_is_given_up(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(Hasty) as (server, connect):
            client = await connect()
            bytewise = [bytes((byte,)) for byte in GET + b"x: y\r\n" * 50]
            sending = asyncio.create_task(client.send(*bytewise, pause=0.02))
            status, _ = await client.answer()
            assert status == 408
            assert await client.closed()
            await sending
            assert server.seen == []

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
@pytest.mark.parametrize("start", [b"G", GET, b"\r\n", b"\r\n\r\n"])
def test_half_a_head_is_not_waited_for_for_ever(loop_factory: LoopFactory, start: bytes) -> None:
    async def story() -> None:
        async with serving(Hasty) as (_, connect):
            first, second = await connect(), await connect()
            await second.send(GET + b"\r\n")
            assert (await second.answer())[0] == 200
            for client in (first, second):
                await client.send(start)
            assert (await first.answer())[0] == 408
            blank = not start.strip()  # after an answer it is nobody's request
            assert (await second.answer())[0] == (0 if blank else 408)
            for client in (first, second):
                assert await client.closed()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_body_that_stops_is_given_up_and_its_request_told(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(Hasty) as (server, connect):
            client = await connect()
            await client.send(POST + b"content-length: 10\r\n\r\nabc")
            assert (await client.answer())[0] == 408
            assert await client.closed()
            assert server.gone == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_body_that_trickles_is_given_up(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(Hasty) as (server, connect):
            client = await connect()
            trickle = [POST + b"content-length: 1000\r\n\r\n", *[b"a"] * 200]
            sending = asyncio.create_task(client.send(*trickle, pause=0.02))
            assert (await client.answer())[0] == 408
            assert await client.closed()
            await sending
            assert server.gone == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_body_that_keeps_coming_may_take_its_time(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(Hasty) as (_, connect):
            client = await connect()
            for framing in (b"content-length: 64000", b"transfer-encoding: chunked"):
                chunked = b"chunked" in framing
                piece = b"3e8\r\n" + b"a" * 1000 + b"\r\n" if chunked else b"a" * 1000
                end = [b"0\r\n\r\n"] if chunked else []
                await client.send(POST + framing + b"\r\n\r\n", *[piece] * 64, *end, pause=0.03)
                assert (await client.answer())[1]["size"] == 64_000

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_trailers_are_no_headers_and_are_bounded_too(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(Hasty) as (server, connect):
            client = await connect()
            body = POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
            await client.send(body + b"authorization: Bearer x\r\n\r\n")
            _, told = await client.answer()
            assert told == {"headers": ["host", "transfer-encoding"], "size": 3}
            for flood in (b"x: " + b"a" * MIB, b"x: y\r\n" * 50_000):
                client = await connect()
                sending = asyncio.create_task(client.send(body, *[flood] * 20))
                assert (await client.answer())[0] in (431, 0)
                assert await client.closed()
                await sending
            assert len(server.seen) == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_the_rest_of_a_body_nobody_wants_is_not_read_for_ever(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(Hasty) as (server, connect):
            server.refuse = True
            client = await connect()
            head = POST + b"content-length: 1000000000\r\n\r\n"
            sending = asyncio.create_task(client.send(head, *[b"a" * 10_000] * 500, pause=0.01))
            assert (await client.answer())[0] == 200
            assert await client.closed()
            await sending

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
@pytest.mark.parametrize("rest", [b"", b"3\r\nabc\r\n", b"no chunk\r\n"])
def test_a_request_that_was_answered_early_gets_no_second_answer(
    loop_factory: LoopFactory, rest: bytes
) -> None:
    """Its client could take that for the answer to its next request."""

    async def story() -> None:
        async with serving(Hasty) as (server, connect):
            server.refuse = True
            client = await connect()
            await client.send(POST + b"transfer-encoding: chunked\r\n\r\n")
            assert (await client.answer())[0] == 200
            await client.send(rest)
            assert await client.closed()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_connection_is_used_again_after_a_body_nobody_wanted(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving() as (server, connect):
            server.refuse = True
            client = await connect()
            await client.send(POST + b"content-length: 300000\r\n\r\n")
            assert (await client.answer())[0] == 200
            await client.send(b"a" * 300_000 + GET + b"\r\n")
            assert (await client.answer())[0] == 200
            assert len(server.seen) == 2

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_requests_sent_at_once_and_large_bodies_pass_as_before(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(Hasty) as (server, connect):
            client = await connect()
            large = POST + b"content-length: 3000000\r\n\r\n" + b"a" * 3_000_000
            await client.send((GET + b"\r\n") * 20 + large + GET + b"\r\n")
            for _ in range(22):
                assert (await client.answer())[0] == 200
            assert [seen["size"] for seen in server.seen] == [0] * 20 + [3_000_000, 0]
            await asyncio.sleep(0.7)  # idle between requests is no offence
            await client.send(GET + b"\r\n")
            assert (await client.answer())[0] == 200

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_what_is_not_http_is_refused_in_the_envelope_of_every_refusal(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with serving() as (_, connect):
            client = await connect()
            await client.send(b"\x16\x03\x01\x00\xa5 hello\r\n\r\n")
            status, body = await client.answer()
            assert (status, body["error"]["code"]) == (400, "invalid_request")
            assert await client.closed()

    run_on(loop_factory, story())
