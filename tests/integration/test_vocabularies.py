"""Vocabularies are loaded while nobody waits, and only where streams may have to be counted."""

import asyncio
from pathlib import Path

from gateway.dataplane.count import Tokeniser
from gateway.dataplane.upkeep import QUIET_S
from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]


def test_after_a_stream_a_quiet_worker_can_count_at_once(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            encoding = world.model["encoding"]
            tokeniser = house.data.plane._settler._tokeniser
            await house.ask(world.secret, model="chat", messages=HELLO)
            await asyncio.sleep(3 * QUIET_S)
            assert not tokeniser._expected
            assert not tokeniser._encodings

            await house.ask(world.secret, model="chat", messages=HELLO, stream=True)

            while encoding not in tokeniser._encodings:
                await asyncio.sleep(0.02)

    run(scenario())


def test_a_vocabulary_that_cannot_be_loaded_is_not_tried_for_ever(tmp_path: Path) -> None:
    async def scenario() -> None:
        tokeniser = Tokeniser(tmp_path)
        tokeniser.expect("nobodys_base")

        await tokeniser.prepare()

        assert not tokeniser._expected
        tokeniser.close()

    run(scenario())
