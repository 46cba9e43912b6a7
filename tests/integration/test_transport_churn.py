"""Callers that vanish at any moment: no connection, place, task or descriptor may go with them."""

import asyncio
import random
import ssl
from pathlib import Path

import pytest

from gateway.backends.transport import PoolStats, Timeouts, TransportError
from tests.certificates import client_tls, server_tls
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.scripted_backend import Script
from tests.transport_pair import LIMIT_BYTES, Pair, chat, pair

CALLERS = 600
PLACES = 8


@ON_BOTH_LOOPS
@pytest.mark.parametrize("rest_s", [0.0, 0.002, 0.1])
def test_after_a_churn_of_cancelled_callers_every_place_is_free(
    loop_factory: LoopFactory, rest_s: float
) -> None:
    run_on(loop_factory, _churn(None, None, CALLERS, rest_s))


@ON_BOTH_LOOPS
def test_after_a_churn_over_tls_every_place_is_free(loop_factory: LoopFactory) -> None:
    run_on(loop_factory, _churn(server_tls(), client_tls(), CALLERS // 4, 0.002))


async def _churn(
    server: ssl.SSLContext | None, client: ssl.SSLContext | None, callers: int, rest_s: float
) -> None:
    chance = random.Random(20_261_121)
    async with pair(server_tls=server, tls=client, max_connections=PLACES, rest_s=rest_s) as p:
        await _all_served(p)  # what is made once is made now
        await _settled(p)
        files = _open_files()
        idle = p.stats.open
        waves = [callers // 6] * 6
        for wave in waves:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_call(p, chance)) for _ in range(wave)]
                for task in tasks:
                    if chance.random() < 0.3:
                        _cancel_some_time(task, chance)
        assert p.stats.waiting == 0
        await _settled(p)
        assert p.stats.open <= PLACES
        # Both ends of every connection are ours here.
        assert _open_files() - files == 2 * (p.stats.open - idle)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await _all_served(p)
        await _settled(p)
        assert 0 < p.stats.open <= PLACES
        assert p.stats.waiting == 0


async def _settled(p: Pair) -> None:
    """Sockets close a loop turn after they are told to, and the other end follows."""
    await until(lambda: not p.stats.busy and len(p.backend.connections) == p.stats.open)


async def _call(p: Pair, chance: random.Random) -> None:
    script = f'script:{{"tokens": {chance.randrange(1, 20)}, "chunk_delay_ms": 1,'
    script += f' "hang_up": {"true" if chance.random() < 0.2 else "false"},'
    script += f' "cut_after_chunks": {chance.choice(["null", "null", "3"])}}}'
    timeouts = Timeouts(pool_ms=chance.choice([2, 20, 20_000]), total_ms=20_000)
    gives_up = chance.random() < 0.2
    try:
        answer = await p.ask(chat(text=script, stream=chance.random() < 0.7), timeouts)
        try:
            while await answer.receive() is not None and not gives_up:
                pass
        finally:
            answer.abort()
    except TransportError:
        pass


def _cancel_some_time(task: asyncio.Task[None], chance: random.Random) -> None:
    """At once, after some turns of the loop, or after some milliseconds."""
    loop = asyncio.get_running_loop()
    way = chance.randrange(3)
    if way == 0:
        task.cancel()
    elif way == 1:
        _cancel_after_turns(loop, task, chance.randrange(1, 40))
    else:
        loop.call_later(chance.random() * 0.05, task.cancel)


def _cancel_after_turns(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], turns: int
) -> None:
    if turns == 0:
        task.cancel()
    else:
        loop.call_soon(_cancel_after_turns, loop, task, turns - 1)


async def _all_served(p: Pair) -> None:
    """A hundred requests at once, all answered."""

    async def ask() -> int:
        answer = await p.ask(chat(max_tokens=1), Timeouts(pool_ms=20_000))
        await answer.read(LIMIT_BYTES)
        return answer.status

    assert await asyncio.gather(*(ask() for _ in range(100))) == [200] * 100


def _open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@ON_BOTH_LOOPS
def test_a_caller_cancelled_in_the_turn_its_connection_is_handed_over_gives_it_on(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(None, Script(stall_after_chunks=1), max_connections=1) as p:
            holder = await p.ask(chat(stream=True))
            first = asyncio.ensure_future(p.ask(chat()))
            second = asyncio.ensure_future(p.ask(chat()))
            await until(lambda: p.stats.waiting == 2)
            holder.abort()
            while p.stats.waiting == 2:
                await asyncio.sleep(0)
            first.cancel()  # it has its place by now, and has not run since
            await (await second).read(LIMIT_BYTES)
            assert first.cancelled()
            assert p.stats == PoolStats(open=1, idle=1, waiting=0)

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_cancelled_caller_lets_the_backend_go_at_once(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(silent=True)) as p:
            asking = asyncio.ensure_future(p.ask(chat()))
            await until(lambda: bool(p.backend.book))
            asking.cancel()
            await p.deserted()
            await until(lambda: p.backend.book[0].client_disconnected)
            assert asking.cancelled()

    run_on(loop_factory, story())
