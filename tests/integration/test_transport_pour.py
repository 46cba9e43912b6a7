"""An answer poured piece by piece into a function while its owner sleeps."""

import asyncio

import pytest

from gateway.backends.answer import PAUSE_ABOVE_BYTES
from gateway.backends.transport import IdleTimeout, Timeouts, TotalTimeout, UpstreamClosed
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.scripted_backend import Script
from tests.transport_pair import LIMIT_BYTES, chat, pair, pieces


@ON_BOTH_LOOPS
def test_every_piece_is_poured_in_order_and_the_end_is_told(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(tokens=200, chunk_delay_ms=1)) as p:
            whole = await (await p.ask(chat(stream=True))).read(LIMIT_BYTES)
            poured: list[bytes] = []

            def into(piece: bytes) -> bool:
                assert asyncio.current_task(asyncio.get_running_loop()) in (None, owner)
                poured.append(piece)
                return True

            owner = asyncio.current_task()
            answer = await p.ask(chat(stream=True))
            assert await answer.pour(into)
            assert b"".join(poured).count(b"data: ") == whole.count(b"data: ")
            assert await answer.pour(into)
            assert len(poured) > 100
            await until(lambda: p.stats.idle == 1)

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_what_comes_after_enough_waits_for_the_next_call_and_holds_the_backend(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with pair(Script(tokens=3_000, event_padding_bytes=10_000)) as p:
            answer = await p.ask(chat(stream=True, max_tokens=3_000))
            poured: list[bytes] = []

            def one(piece: bytes) -> bool:
                poured.append(piece)
                return False

            assert not await answer.pour(one)
            await asyncio.sleep(0.1)
            assert len(poured) == 1
            assert not p.backend.book[0].finished  # 30 MB are not taken in
            assert not await answer.pour(one)
            assert PAUSE_ABOVE_BYTES < len(poured[1]) < 20 * PAUSE_ABOVE_BYTES
            rest = await pieces(answer)
            said = b"".join(poured + rest)
            assert said.count(b"data: ") == 3_000 + said.count(b'"usage"') + 2

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_what_goes_wrong_in_the_function_is_its_owners_to_hear(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(tokens=50, chunk_delay_ms=2)) as p:
            answer = await p.ask(chat(stream=True))
            poured = 0

            def into(_: bytes) -> bool:
                nonlocal poured
                poured += 1
                if poured == 5:
                    raise ValueError("not to be borne")
                return True

            with pytest.raises(ValueError, match="borne"):
                await answer.pour(into)
            assert poured == 5
            answer.abort()
            await p.deserted()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_nothing_is_poured_once_the_owner_is_cancelled(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(tokens=500, chunk_delay_ms=1)) as p:
            answer = await p.ask(chat(stream=True))
            poured = 0

            def into(_: bytes) -> bool:
                nonlocal poured
                poured += 1
                if poured == 20:
                    owner.cancel()
                return True

            owner = asyncio.ensure_future(answer.pour(into))
            with pytest.raises(asyncio.CancelledError):
                await owner
            await asyncio.sleep(0.05)
            assert poured == 20
            answer.abort()
            await p.deserted()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_patience_counts_from_the_last_piece(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        slow = Script(tokens=40, chunk_delay_ms=20)
        async with pair(slow, Script(stall_after_chunks=3)) as p:
            patience = Timeouts(idle_ms=400)
            stalled = await p.ask(chat(stream=True), patience)
            seen: list[bytes] = []
            with pytest.raises(IdleTimeout):
                await stalled.pour(lambda piece: bool(seen.append(piece)) or True)
            assert b"".join(seen).count(b"data: ") == 3
            lasting = await p.ask(chat(stream=True), patience)  # 800 ms in all
            assert await lasting.pour(lambda _: True)
            hurried = await p.ask(chat(stream=True), Timeouts(idle_ms=400, total_ms=300))
            with pytest.raises(TotalTimeout):
                await hurried.pour(lambda _: True)

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_what_came_before_a_cut_is_poured_before_the_cut_is_told(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with pair(Script(cut_after_chunks=3)) as p:
            answer = await p.ask(chat(stream=True))
            seen: list[bytes] = []
            with pytest.raises(UpstreamClosed):
                await answer.pour(lambda piece: bool(seen.append(piece)) or True)
            assert b"".join(seen).count(b"data: ") == 3

    run_on(loop_factory, story())
