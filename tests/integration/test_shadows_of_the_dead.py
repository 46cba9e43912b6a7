"""A worker is killed while a shadow of its is under way."""

import asyncio
import os
import signal
from pathlib import Path

from gateway.jobs import replay_spool
from gateway.wiring.jobs import open_jobs
from tests.booked import ledger_rows
from tests.running import run
from tests.scripted_answers import Script
from tests.shadowing import CHAT, HELLO, staged
from tests.workers import another_worker


def test_a_worker_that_dies_with_a_shadow_leaves_the_evidence_that_its_payer_is_billed_from(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as stage:
            await stage.tried()
            stage.aside.script = Script(delay_ms=60_000)
            async with another_worker(stage.house, 1) as worker:
                headers = {"authorization": f"Bearer {stage.world.secret}"}
                body = {"model": "chat", "messages": HELLO, "max_tokens": 20}
                answer = await worker.client.post(CHAT, json=body, headers=headers)
                assert answer.status_code == 200
                while not stage.aside.book:
                    await asyncio.sleep(0.005)
                os.kill(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
            async with open_jobs(stage.house.settings, "jobs-1") as deps:
                await replay_spool.run(deps, asyncio.Event())
            mine, other = await ledger_rows(stage.house)
            assert (mine.request_id, mine.hold) == (answer.headers["x-request-id"], "settled")
            assert (other.shadow_of, other.key_id) == (mine.request_id, stage.lab["id"])
            assert (other.hold, other.provenance) == ("estimated", "estimated")
            assert other.charge_picos == other.input_tokens * 1_000_000 > 0
            shown = f"{other.charge_picos / 10**12:.6f}"
            assert await stage.spent(stage.lab) == (shown, "0")

    run(scenario())
