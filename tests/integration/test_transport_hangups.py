"""Backends that promise keep-alive and hang up all the same: no request may be lost to that."""

import asyncio
import json
import random
from collections.abc import Callable

from gateway.backends.transport import Endpoint, PoolStats, Transport, TransportError
from gateway.backends.trust import FIRST_PROOFS
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.scripted_backend import Script, backend_process
from tests.transport_pair import JSON, LIMIT_BYTES, PATIENT, Pair, chat, pair

CALLERS = 8
REQUESTS = 200
FOREVER_S = 3600.0
PLAIN_ANSWER = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nkeep-alive: {}\r\n\r\n{{}}"


@ON_BOTH_LOOPS
def test_no_stream_is_lost_to_a_backend_that_closes_within_milliseconds_of_each(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        chance = random.Random(20_261_121)
        async with pair() as p:
            assert await _lost(p, lambda: _hanging_up(chance.randrange(6))) == 0
            # Nothing was asked twice, and a connection a request is all it costs.
            assert len(p.backend.book) == REQUESTS
            assert p.backend.accepted == REQUESTS

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_no_stream_is_lost_to_a_backend_process_that_closes_at_once(
    loop_factory: LoopFactory,
) -> None:
    async def story(url: str) -> None:
        transport = Transport()
        endpoint = Endpoint.parse(url)
        left = iter(range(REQUESTS))

        async def ask() -> None:
            for _ in left:
                answer = await transport.request(
                    endpoint, "/chat/completions", JSON, _hanging_up(0), PATIENT
                )
                await answer.read(LIMIT_BYTES)

        await asyncio.gather(*(ask() for _ in range(CALLERS)))
        await transport.close()

    with backend_process() as url:
        run_on(loop_factory, story(url))


@ON_BOTH_LOOPS
def test_a_backend_that_has_proven_itself_is_asked_again_at_once(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(rest_s=0.002) as p:
            await _prove(p, chat())
            known = p.backend.accepted
            for _ in range(REQUESTS):
                await (await p.ask(chat())).read(LIMIT_BYTES)
            assert p.backend.accepted == known

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_proven_backend_that_begins_to_hang_up_costs_at_most_what_is_under_way(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(rest_s=0.002) as p:
            await _prove(p, chat(stream=True))
            assert await _lost(p, lambda: _hanging_up(2)) <= CALLERS
            assert await _lost(p, lambda: _hanging_up(2)) == 0

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_hanging_up_on_streams_does_not_cost_plain_answers_their_trust(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(rest_s=0.002) as p:
            await _prove(p, chat())
            known, streams = p.backend.accepted, 30
            for _ in range(streams):
                await (await p.ask(_hanging_up(0))).read(LIMIT_BYTES)
                for _ in range(5):
                    await (await p.ask(chat())).read(LIMIT_BYTES)
            assert p.backend.accepted <= known + streams

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_resting_connection_makes_way_in_a_full_pool(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(rest_s=FOREVER_S, keepalive_s=FOREVER_S, max_connections=2) as p:
            for _ in range(5):  # who comes later finds the pool full of resting ones
                await (await p.ask(chat())).read(LIMIT_BYTES)
            assert p.backend.accepted == 5

            async def ask() -> None:  # most of these wait already when a connection would rest
                await (await p.ask(chat())).read(LIMIT_BYTES)

            await asyncio.gather(*(ask() for _ in range(10)))
            assert p.backend.accepted == 15
            assert p.stats.open <= 2

    run_on(loop_factory, story(), within_s=5)


@ON_BOTH_LOOPS
def test_resting_connections_do_not_pile_up_at_a_backend(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(rest_s=FOREVER_S, keepalive_s=FOREVER_S) as p:
            for _ in range(50):
                await (await p.ask(chat())).read(LIMIT_BYTES)
                assert p.stats.open <= 3

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_full_pool_still_lets_some_rest_so_that_trust_can_be_earned(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(rest_s=0.002, max_connections=8) as p:
            ended = False

            async def ask() -> None:
                while not ended:
                    await (await p.ask(chat(max_tokens=1))).read(LIMIT_BYTES)

            async with asyncio.TaskGroup() as group:
                for _ in range(32):
                    group.create_task(ask())
                known, answered = 0, 0
                while p.backend.accepted > known or len(p.backend.book) < answered + REQUESTS:
                    if p.backend.accepted > known:
                        known, answered = p.backend.accepted, len(p.backend.book)
                    await asyncio.sleep(0.001)
                ended = True

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_resting_connection_is_free_for_whoever_waits_when_it_has_rested(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        stalling = Script(stall_after_chunks=1)
        async with pair(None, *[stalling] * 7, rest_s=0.01, max_connections=8) as p:
            held = [await p.ask(chat(stream=True)) for _ in range(7)]
            await (await p.ask(chat())).read(LIMIT_BYTES)
            assert p.stats == PoolStats(open=8, idle=1, waiting=0)
            await (await p.ask(chat())).read(LIMIT_BYTES)
            assert p.backend.accepted == 8
            for answer in held:
                answer.abort()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_connection_is_closed_before_the_backends_own_timeout(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with pair(Script(raw=PLAIN_ANSWER.format("timeout=1"))) as p:
            for _ in range(8):  # a busy machine spoils one or another
                answered_at = loop.time()
                await (await p.ask(chat())).read(LIMIT_BYTES)
                await until(lambda: not p.stats.open)
                if (took_s := loop.time() - answered_at) < 1:
                    break
            assert 0.5 < took_s < 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_connection_carries_no_more_requests_than_the_backend_takes(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(Script(raw=PLAIN_ANSWER.format("timeout=5, max=3")), rest_s=0.0) as p:
            for _ in range(9):
                await (await p.ask(chat())).read(LIMIT_BYTES)
            assert p.backend.accepted == 3

    run_on(loop_factory, story())


def _hanging_up(after_ms: int) -> bytes:
    script = {"tokens": 3, "hang_up": True, "hang_up_after_ms": after_ms}
    return chat(stream=True, text=f"script:{json.dumps(script)}")


async def _lost(p: Pair, body: Callable[[], bytes]) -> int:
    left = iter(range(REQUESTS))
    lost = 0

    async def ask() -> None:
        nonlocal lost
        for _ in left:
            try:
                await (await p.ask(body())).read(LIMIT_BYTES)
            except TransportError:
                lost += 1

    await asyncio.gather(*(ask() for _ in range(CALLERS)))
    return lost


async def _prove(p: Pair, body: bytes) -> None:
    """Asks until more requests in a row than proofs are required have needed no new connection."""
    row, known = 0, -1
    while row <= FIRST_PROOFS:
        await (await p.ask(body)).read(LIMIT_BYTES)
        row, known = (row + 1 if p.backend.accepted == known else 0), p.backend.accepted
