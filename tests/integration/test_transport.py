"""The transport against a real server: what it sends, how it waits, when it lets go."""

import asyncio
import json

import pytest

from gateway.backends.transport import (
    AnswerTooLarge,
    Endpoint,
    FirstByteTimeout,
    IdleTimeout,
    PoolStats,
    Timeouts,
    TotalTimeout,
    TransportError,
    UpstreamClosed,
)
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.scripted_backend import Script
from tests.transport_pair import LIMIT_BYTES, PATIENT, chat, pair, pieces


@ON_BOTH_LOOPS
def test_a_plain_answer_comes_back_whole_and_frees_its_connection(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(rest_s=0.0) as p:
            for _ in range(3):
                answer = await p.ask(chat(max_tokens=3))
                assert answer.status == 200
                assert answer.header(b"content-type") == b"application/json"
                body = json.loads(await answer.read(LIMIT_BYTES))
                assert body["usage"]["completion_tokens"] == 3
                assert answer.complete
            assert p.stats == PoolStats(open=1, idle=1, waiting=0)
            assert p.backend.accepted == 1
            sent = p.backend.book[0].headers
            assert sent["host"] == f"127.0.0.1:{p.backend.port}"
            assert sent["accept-encoding"] == "identity"
            assert sent["x-request-id"] == "r1"

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_stream_arrives_as_it_is_sent_and_its_end_is_told(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(tokens=5, chunk_delay_ms=5)) as p:
            answer = await p.ask(chat(stream=True))
            found = await pieces(answer)
            assert len(found) >= 5
            assert b"".join(found).endswith(b"data: [DONE]\n\n")
            assert await answer.receive() is None
            assert p.stats.idle == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_large_request_and_a_large_answer_pass_a_slow_reader_with_bounded_memory(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(Script(tokens=1000, event_padding_bytes=50_000)) as p:
            answer = await p.ask(chat(stream=True, text="x" * 3_000_000))
            assert p.backend.book[0].bytes_received > 3_000_000
            for _ in range(20):
                await asyncio.sleep(0.005)  # the backend runs as far ahead as it is let
            assert not p.backend.book[0].finished
            found = await pieces(answer)
            assert max(map(len, found)) < 2 * 1024 * 1024
            assert sum(map(len, found)) > 1000 * 50_000
            assert p.stats.idle == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_read_stops_at_its_limit_and_lets_the_backend_go(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(word=" x" * 50_000, tokens=20)) as p:
            answer = await p.ask(chat())
            with pytest.raises(AnswerTooLarge) as told:
                await answer.read(100_000)
            assert told.value.sent

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_the_hook_runs_once_when_the_connection_is_ready_and_may_call_it_off(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair() as p:
            calls: list[int] = []

            def refuse() -> None:
                raise OSError("the spool is full")

            with pytest.raises(OSError, match="spool"):
                await p.ask(chat(), before_send=refuse)
            assert p.backend.book == []
            assert p.stats == PoolStats(open=1, idle=1, waiting=0)
            answer = await p.ask(chat(), before_send=lambda: calls.append(len(p.backend.book)))
            await answer.read(LIMIT_BYTES)
            assert calls == [0]
            assert p.backend.accepted == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_each_wait_has_its_own_end(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        silent, stalling = Script(silent=True), Script(stall_after_chunks=2)
        async with pair(Script(), silent, stalling, stalling) as p:
            with pytest.raises(FirstByteTimeout) as first:
                await p.ask(chat(), Timeouts(first_byte_ms=30))
            answer = await p.ask(chat(stream=True), Timeouts(idle_ms=30))
            with pytest.raises(IdleTimeout) as idle:
                await pieces(answer)
            answer = await p.ask(chat(stream=True), Timeouts(total_ms=40))
            with pytest.raises(TotalTimeout) as total:
                await pieces(answer)
            assert first.value.sent
            assert idle.value.sent
            assert total.value.sent
            await p.deserted()
            assert (await p.ask(chat())).status == 200

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_the_total_time_is_over_even_while_nobody_reads(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(stall_after_chunks=1)) as p:
            answer = await p.ask(chat(stream=True), Timeouts(total_ms=30))
            await p.deserted()
            with pytest.raises(TotalTimeout):
                await pieces(answer)

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_what_came_before_a_cut_is_given_before_the_cut_is_told(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(cut_after_chunks=3)) as p:
            answer = await p.ask(chat(stream=True))
            await until(lambda: not p.stats.open)
            found = await answer.receive()
            assert found is not None
            assert found.count(b"data: ") == 3
            with pytest.raises(UpstreamClosed) as told:
                await answer.receive()
            assert told.value.sent
            with pytest.raises(UpstreamClosed):
                await answer.receive()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_plain_answer_cut_at_any_byte_is_never_taken_for_whole(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        cuts = range(0, 200, 7)
        async with pair(None, *(Script(cut_at_byte=at) for at in cuts)) as p:
            for _ in cuts:
                with pytest.raises(UpstreamClosed):
                    await (await p.ask(chat())).read(LIMIT_BYTES)
            await p.deserted()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_abort_closes_the_backends_socket_at_once(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(tokens=10_000, chunk_delay_ms=2)) as p:
            answer = await p.ask(chat(stream=True))
            await answer.receive()
            answer.abort()
            answer.abort()
            await p.deserted()
            await until(lambda: p.backend.book[0].client_disconnected)
            assert p.backend.book[0].generated_tokens < 100
            with pytest.raises(TransportError):
                await answer.receive()
            await p.deserted()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_abort_after_the_end_keeps_the_connection(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair() as p:
            answer = await p.ask(chat())
            await answer.read(LIMIT_BYTES)
            answer.abort()
            assert p.stats.idle == 1

    run_on(loop_factory, story())


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/a", [(b"x", b"1\r\nhost: evil")]),
        ("/a", [(b"x", b"1\nhost: evil")]),
        ("/a", [(b"x\r\ny", b"1")]),
        ("/a", [(b"x", b"1\0")]),
        ("/a\r\nhost: evil", []),
        ("/a b", []),
        ("/a", [(b"Host", b"evil")]),
        ("/a", [(b"Content-Length", b"0")]),
        ("/a", [(b"transfer-encoding", b"chunked")]),
    ],
)
def test_a_request_that_could_be_read_as_two_is_refused_before_it_is_sent(
    path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    async def story() -> None:
        async with pair() as p:
            with pytest.raises(ValueError, match=r"header|path"):
                await p.transport.request(p.endpoint, path, headers, b"", PATIENT)
            assert p.backend.accepted == 0

    run_on(asyncio.new_event_loop, story())


@ON_BOTH_LOOPS
def test_bytes_that_bring_no_content_do_not_renew_the_patience(loop_factory: LoopFactory) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.002)
        writer.close()

    async def story() -> None:
        async with pair() as p:
            server = await asyncio.start_server(drip, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            p.endpoint = Endpoint.parse(f"http://127.0.0.1:{port}")
            answer = await p.ask(b"", Timeouts(idle_ms=50))
            with pytest.raises(IdleTimeout):
                await answer.receive()
            server.close()
            await until(lambda: len(asyncio.all_tasks()) == 1)

    run_on(loop_factory, story())
