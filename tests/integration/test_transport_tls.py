"""TLS: verified always, and no less exact about ends and places than plain sockets."""

import asyncio
import ssl

import pytest

from gateway.backends.pool import MOST_CONNECTING
from gateway.backends.transport import (
    ConnectFailed,
    ConnectTimeout,
    Endpoint,
    PoolStats,
    Timeouts,
    Transport,
    UpstreamClosed,
)
from tests.certificates import client_tls, server_tls
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.scripted_backend import Script, ScriptedBackend
from tests.transport_pair import JSON, LIMIT_BYTES, PATIENT, chat, pair, pieces


@ON_BOTH_LOOPS
def test_plain_answers_and_streams_pass_over_one_verified_connection(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(server_tls=server_tls(), tls=client_tls(), rest_s=0.0) as p:
            assert (await (await p.ask(chat())).read(LIMIT_BYTES)).startswith(b"{")
            answer = await p.ask(chat(stream=True))
            assert b"".join(await pieces(answer)).endswith(b"data: [DONE]\n\n")
            assert p.stats == PoolStats(open=1, idle=1, waiting=0)
            assert p.backend.accepted == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
@pytest.mark.parametrize("client", [None, "wrong name"])
def test_a_certificate_we_cannot_verify_means_nothing_was_sent(
    loop_factory: LoopFactory, client: str | None
) -> None:
    async def story() -> None:
        async with ScriptedBackend(server_tls()) as backend:
            host = "127.0.0.1" if client is None else "localhost"
            endpoint = Endpoint.parse(f"https://{host}:{backend.port}")
            transport = Transport(tls=None if client is None else client_tls())
            with pytest.raises(ConnectFailed, match="CERTIFICATE_VERIFY_FAILED") as told:
                await transport.request(endpoint, "/", JSON, b"", PATIENT)
            assert not told.value.sent
            assert backend.book == []
            assert transport.stats(endpoint) == PoolStats(0, 0, 0)
            await transport.close()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_server_that_never_shakes_hands_is_given_up_in_time(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with ScriptedBackend() as backend:  # waits for a request in plain text
            endpoint = Endpoint.parse(f"https://127.0.0.1:{backend.port}")
            transport = Transport(tls=client_tls())
            with pytest.raises((ConnectTimeout, ConnectFailed)) as told:
                await transport.request(endpoint, "/", JSON, b"", Timeouts(connect_ms=100))
            assert not told.value.sent
            assert transport.stats(endpoint) == PoolStats(0, 0, 0)
            await transport.close()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_storm_of_callers_connects_a_bounded_number_at_a_time(loop_factory: LoopFactory) -> None:
    accepted: list[asyncio.BaseTransport] = []

    class Mute(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Mute, "127.0.0.1", 0, backlog=1024)
        endpoint = Endpoint.parse(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        transport = Transport(tls=client_tls())

        async def ask() -> None:
            with pytest.raises(ConnectTimeout):
                await transport.request(endpoint, "/", JSON, b"", Timeouts(connect_ms=3_000))

        async with asyncio.TaskGroup() as group:
            for _ in range(MOST_CONNECTING + 40):
                group.create_task(ask())
            await until(lambda: len(accepted) == MOST_CONNECTING)
            waiting = PoolStats(open=MOST_CONNECTING, idle=0, waiting=40)
            assert transport.stats(endpoint) == waiting
        assert len(accepted) == MOST_CONNECTING + 40
        assert transport.stats(endpoint) == PoolStats(0, 0, 0)
        await transport.close()
        server.close()
        await server.wait_closed()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_slow_reader_pauses_an_encrypted_stream_too(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        script = Script(tokens=1000, event_padding_bytes=50_000)
        async with pair(script, server_tls=server_tls(), tls=client_tls()) as p:
            answer = await p.ask(chat(stream=True, text="x" * 1_000_000))
            for _ in range(20):
                await asyncio.sleep(0.005)
            assert not p.backend.book[0].finished
            assert sum(map(len, await pieces(answer))) > 1000 * 50_000
            assert p.stats.idle == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_cut_is_a_cut_under_tls(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        cut = Script(cut_after_chunks=2)
        async with pair(cut, server_tls=server_tls(), tls=client_tls()) as p:
            with pytest.raises(UpstreamClosed):
                await pieces(await p.ask(chat(stream=True)))
            await p.deserted()

    run_on(loop_factory, story())


def test_the_default_is_to_verify() -> None:
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
    assert Endpoint.parse("https://api.example.com/v1").tls
