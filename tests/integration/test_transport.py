"""The transport against a real server: what it sends, how it waits, when it lets go."""

import asyncio
import json
import socket

import pytest

from gateway.backends.transport import (
    AnswerTooLarge,
    ConnectFailed,
    ConnectTimeout,
    Endpoint,
    FirstByteTimeout,
    IdleTimeout,
    PoolStats,
    PoolTimeout,
    Timeouts,
    TotalTimeout,
    Transport,
    TransportError,
    UpstreamClosed,
)
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.scripted_backend import Script
from tests.transport_pair import JSON, LIMIT_BYTES, PATIENT, chat, pair, pieces


@ON_BOTH_LOOPS
def test_a_plain_answer_comes_back_whole_and_frees_its_connection(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair() as p:
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


@ON_BOTH_LOOPS
def test_a_full_pool_makes_callers_wait_in_order_and_tells_who_waited_too_long(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        stalling = Script(stall_after_chunks=1)
        async with pair(None, stalling, stalling, max_connections=2) as p:
            held = [await p.ask(chat(stream=True)) for _ in range(2)]
            served: list[int] = []

            async def queue(number: int) -> None:
                await (await p.ask(chat())).read(LIMIT_BYTES)
                served.append(number)

            with pytest.raises(PoolTimeout) as told:
                await p.ask(chat(), Timeouts(pool_ms=20))
            assert not told.value.sent
            async with asyncio.TaskGroup() as group:
                for number in range(6):
                    group.create_task(queue(number))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert p.stats == PoolStats(open=2, idle=0, waiting=6)
                held[0].abort()
            assert served == list(range(6))
            held[1].abort()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_the_request_deadline_counts_the_queue_too(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(silent=True), max_connections=1) as p:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(p.ask(chat()))
                await until(lambda: bool(p.backend.book))
                with pytest.raises(TotalTimeout) as told:
                    await p.ask(chat(), Timeouts(total_ms=30))
                assert not told.value.sent
                first.cancel()
            assert p.stats.waiting == 0

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_connection_the_server_hung_up_meanwhile_is_never_written_to(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(Script(hang_up=True)) as p:
            for _ in range(20):
                assert (await p.ask(chat())).status == 200
            assert p.backend.accepted == 20

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_an_end_of_file_the_loop_has_not_seen_yet_is_seen_before_the_write(
    loop_factory: LoopFactory,
) -> None:
    """The listener answers and closes while the loop is blocked: only the kernel knows."""

    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            endpoint = Endpoint.parse(f"http://127.0.0.1:{listener.getsockname()[1]}")
            transport = Transport()

            def serve_one() -> None:
                accepted, _ = listener.accept()
                with accepted:
                    accepted.recv(65536)
                    accepted.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

            served = asyncio.to_thread(serve_one)
            first, _ = await asyncio.gather(
                transport.request(endpoint, "/a", JSON, b"", PATIENT), served
            )
            assert await first.read(LIMIT_BYTES) == b"{}"
            second, _ = await asyncio.gather(
                transport.request(endpoint, "/b", JSON, b"", PATIENT), asyncio.to_thread(serve_one)
            )
            assert await second.read(LIMIT_BYTES) == b"{}"
            await transport.close()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_an_idle_connection_is_closed_when_its_time_is_over(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(keepalive_s=0.03) as p:
            await (await p.ask(chat())).read(LIMIT_BYTES)
            assert p.stats.idle == 1
            await p.deserted()
            assert (await p.ask(chat())).status == 200

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_nothing_was_sent_where_no_connection_could_be_made(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        transport = Transport()
        for url in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid"):
            endpoint = Endpoint.parse(url)
            with pytest.raises(ConnectFailed) as told:
                await transport.request(endpoint, "/", JSON, b"", PATIENT)
            assert not told.value.sent
            assert transport.stats(endpoint) == PoolStats(0, 0, 0)
        await transport.close()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_server_that_does_not_accept_is_given_up_in_time(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            fillers = []
            for _ in range(4):  # the kernel completes as many as the backlog holds, then is silent
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
                fillers.append(filler)
            transport = Transport()
            endpoint = Endpoint.parse(f"http://127.0.0.1:{full.getsockname()[1]}")
            with pytest.raises(ConnectTimeout) as told:
                await transport.request(endpoint, "/", JSON, b"", Timeouts(connect_ms=50))
            assert not told.value.sent
            assert transport.stats(endpoint) == PoolStats(0, 0, 0)
            await transport.close()
            for filler in fillers:
                filler.close()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_close_ends_what_is_under_way_and_refuses_what_comes_later(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(Script(silent=True), Script(stall_after_chunks=1), max_connections=2) as p:
            streaming = await p.ask(chat(stream=True))
            async with asyncio.TaskGroup() as group:
                unanswered = group.create_task(_fault_of(p.ask(chat())))
                queued = group.create_task(_fault_of(p.ask(chat())))
                await until(lambda: p.stats.waiting == 1 and len(p.backend.book) == 2)
                await p.transport.close()
            assert unanswered.result().sent
            assert not queued.result().sent
            with pytest.raises(TransportError):
                await pieces(streaming)
            assert not (await _fault_of(p.ask(chat()))).sent

    run_on(loop_factory, story())


async def _fault_of(asking: object) -> TransportError:
    with pytest.raises(TransportError) as told:
        await asking
    return told.value


@ON_BOTH_LOOPS
def test_credentials_never_share_a_connection(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair() as p:
            for credential in ("a", "b", "a"):
                endpoint = Endpoint.parse(p.backend.base_url, credential)
                answer = await p.transport.request(
                    endpoint, "/chat/completions", JSON, chat(), PATIENT
                )
                await answer.read(LIMIT_BYTES)
            assert p.backend.accepted == 2

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
def test_an_old_connection_is_not_used_again(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(max_age_s=0.0) as p:
            for _ in range(3):
                await (await p.ask(chat())).read(LIMIT_BYTES)
            assert p.backend.accepted == 3

    run_on(loop_factory, story())


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
