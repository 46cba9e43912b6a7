"""What an idempotency key means once the worker that served it is dead."""

import asyncio
from collections.abc import Callable
from typing import Any

from billing.meters import Meters, Provenance
from billing.usage import ENCODER
from gateway.jobs import replay_spool
from gateway.jobs.deps import JobDeps
from gateway.stores.redis import keys
from gateway.stores.redis.holds import Admission, Granted, Replay, Ticket
from gateway.stores.spool import Spool
from tests.integration.test_jobs_drain import TAG
from tests.integration.test_jobs_reap import Story, played, reap, rows
from tests.ledger_events import NOON_US, an_event

__all__ = ["played"]

MINE = Ticket(keys.tickets(TAG, "key_1"), "1" * 32, "a" * 32, 3_600_000, 9)
IN_FLIGHT = Replay("in_flight", "req_1")
FINISHED = Replay("finished", "req_1")


async def ask(deps: JobDeps, hold_id: str, owner: str = "") -> Any:
    """An admission with the ticket; its hold is overdue at once."""
    template = an_event(
        hold_id,
        0,
        usage=Meters(input=1_000, output=500),
        provenance=Provenance.ESTIMATED,
        reported=None,
        counted=None,
    )
    admission = Admission(
        hold_id=hold_id,
        ttl_ms=0,
        input_money=3_000_000,
        output_money=15_000,
        input_tokens=1_000,
        wanted=500,
        least=500,
        choices=1,
        gates=(),
        slots=(),
        accounts=(),
        meta=ENCODER.encode(template),
        owner=owner,
        ticket=MINE,
    )
    return await deps.holds.admit(TAG, admission)


def test_it_is_in_flight_until_the_hold_is_reaped_and_finished_afterwards(
    played: Callable[[Story], None],
) -> None:
    async def story(deps: JobDeps) -> None:
        assert isinstance(await ask(deps, "req_1"), Granted)
        assert await ask(deps, "req_2") == IN_FLIGHT
        assert await reap(deps) == 1
        assert await ask(deps, "req_3") == FINISHED
        (row,) = await rows(deps)
        assert (row["request_id"], row["hold"]) == ("req_1", "estimated")

    played(story)


def test_what_the_reaper_knows_was_never_sent_may_be_asked_again(
    played: Callable[[Story], None],
) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        try:
            assert isinstance(await ask(deps, "req_1", spool.name), Granted)
            assert await reap(deps) == 1
            assert isinstance(await ask(deps, "req_2", spool.name), Granted)
            assert await rows(deps) == []
        finally:
            await spool.close()

    played(story)


def test_what_a_dead_workers_spool_never_sent_may_be_asked_again(
    played: Callable[[Story], None],
) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        assert isinstance(await ask(deps, "req_1", spool.name), Granted)
        spool.intent("req_1", TAG, NOON_US, ENCODER.encode(an_event("req_1", 0)))
        await spool.close()
        assert await ask(deps, "req_2") == IN_FLIGHT
        await replay_spool.run(deps, asyncio.Event())
        assert isinstance(await ask(deps, "req_3"), Granted)

    played(story)


def test_what_a_dead_workers_spool_did_send_is_finished(played: Callable[[Story], None]) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        assert isinstance(await ask(deps, "req_1", spool.name), Granted)
        spool.intent("req_1", TAG, NOON_US, ENCODER.encode(an_event("req_1", 0)))
        spool.dispatch("req_1", 1, "backend_eu", NOON_US)
        await spool.close()
        await replay_spool.run(deps, asyncio.Event())
        assert await ask(deps, "req_2") == FINISHED
        assert [row["request_id"] for row in await rows(deps)] == ["req_1"]

    played(story)
