"""The pool: who waits, which connection is taken, which is never used again."""

import asyncio
import socket

import pytest

from gateway.backends.transport import (
    ConnectFailed,
    ConnectTimeout,
    Endpoint,
    PoolStats,
    PoolTimeout,
    Timeouts,
    TotalTimeout,
    Transport,
    TransportError,
)
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.scripted_backend import Script
from tests.transport_pair import JSON, LIMIT_BYTES, PATIENT, chat, pair, pieces


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
        async with pair(rest_s=0.0) as p:
            for credential in ("a", "b", "a"):
                endpoint = Endpoint.parse(p.backend.base_url, credential)
                answer = await p.transport.request(
                    endpoint, "/chat/completions", JSON, chat(), PATIENT
                )
                await answer.read(LIMIT_BYTES)
            assert p.backend.accepted == 2

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_an_old_connection_is_not_used_again(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(max_age_s=0.0) as p:
            for _ in range(3):
                await (await p.ask(chat())).read(LIMIT_BYTES)
            assert p.backend.accepted == 3

    run_on(loop_factory, story())
