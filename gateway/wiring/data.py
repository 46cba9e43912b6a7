"""What a data plane worker is made of."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from functools import partial
from random import Random
from typing import Any, Final

import msgspec
from sqlalchemy import Engine

from billing.periods import Window
from gateway import secrets
from gateway.backends.health import Backends
from gateway.backends.pool import PoolStats
from gateway.backends.transport import Transport
from gateway.clock import monotonic_us
from gateway.dataplane.affinity import Prefixes
from gateway.dataplane.bodies import Bodies, Room
from gateway.dataplane.count import Calibration, Tokeniser
from gateway.dataplane.decisions import Decisions
from gateway.dataplane.forward import Forwarder
from gateway.dataplane.idempotency import Bounds, Idempotency
from gateway.dataplane.leases import Leases
from gateway.dataplane.ledger_away import Patience, keep_looking
from gateway.dataplane.outage import Outage
from gateway.dataplane.reach import Sealed, Unseal
from gateway.dataplane.reading import LargeBodies
from gateway.dataplane.refresh import Refresher, load_snapshot
from gateway.dataplane.report import keep_reporting
from gateway.dataplane.request import DataPlane
from gateway.dataplane.settle import Settler
from gateway.dataplane.shadow import MakeShadows, Shadows
from gateway.dataplane.sharing import keep_sharing
from gateway.dataplane.sliced import Slicer
from gateway.dataplane.standing import Readers, Used
from gateway.dataplane.turns import Bounds as QueueBounds
from gateway.dataplane.turns import Figures, Turns
from gateway.dataplane.upkeep import Whole, upkeep
from gateway.descriptors import most_exchanges
from gateway.settings import Settings
from gateway.stores.redis import address, bus
from gateway.stores.redis.accounts import account_reader, gate_reader
from gateway.stores.redis.backend_slots import SlotStore
from gateway.stores.redis.channel import Channels
from gateway.stores.redis.holds import HoldStore
from gateway.stores.spool import Spool
from gateway.stores.sql.seal import Sealer, SealError
from gateway.stores.sql.usage_reports import Question, report
from gateway.telemetry import names
from gateway.telemetry.service import Telemetry
from gateway.wiring.parts import (
    hold_store,
    opened_channels,
    opened_engine,
    peppers_of,
    started_telemetry,
)
from policies.failover import RetryBudget

_LOG: Final = logging.getLogger(__name__)


class Data(msgspec.Struct, frozen=True):
    """A running data plane."""

    plane: DataPlane
    transport: Transport
    channels: Channels
    spool: Spool
    telemetry: Telemetry
    whole: Whole


def unsealer(sealer: Sealer) -> Unseal:
    """A credential that does not open takes its backend out, not the gateway down: the backend will
    refuse a call without one, and that shows in its breaker and in the log. Without their key no
    end users are kept.
    """

    def unseal(row: Sealed) -> str | None:
        if row.credential_sealed is None:
            return None
        try:
            return sealer.unseal(row.id, row.credential_sealed)
        except SealError as fault:
            _LOG.error("%s is used without what is sealed of it: %s", row.id, fault)
            return None

    return unseal


def used_reader(engine: Engine) -> Callable[[str, str, Window], Awaitable[Used]]:
    """A key's usage from the ledger, read in a thread."""

    def read(tenant_id: str, key_id: str, span: Window) -> Used:
        filters = {"tenant_id": tenant_id, "key_id": key_id}
        groups = report(
            engine, Question(start_us=span.start_us, end_us=span.end_us, filters=filters)
        )
        return Used(
            requests=sum(group.requests for group in groups),
            input_tokens=sum(
                group.input_tokens + group.cache_read_tokens + group.cache_write_tokens
                for group in groups
            ),
            output_tokens=sum(group.output_tokens for group in groups),
            charge_picos=sum(group.charge_picos for group in groups),
        )

    async def used(tenant_id: str, key_id: str, span: Window) -> Used:
        return await asyncio.to_thread(read, tenant_id, key_id, span)

    return used


@asynccontextmanager
async def open_data(settings: Settings, worker: int) -> AsyncIterator[Data]:
    """Everything a data plane worker needs, open for as long as the block runs."""
    held, unseal = _secrets(settings)
    async with AsyncExitStack() as stack:
        telemetry = await started_telemetry(stack, settings, f"data-{worker}")
        engine = opened_engine(stack, settings)
        channels = await opened_channels(stack, settings)  # until it is up we refuse
        spool, transport = _opened_spool(stack, settings, worker), _opened_transport(stack)
        tokeniser = stack.enter_context(closing(Tokeniser(settings.home / "vocabularies")))
        holds, backends, loaded_us = hold_store(channels, settings), Backends(), monotonic_us()
        calibration, decisions = Calibration(), Decisions(holds, settings.jurisdictions)
        leases = _leases(holds, spool, settings)
        settler = Settler(holds, spool, tokeniser, calibration, decisions)
        turns = _turns(stack, telemetry, channels, spool, settings, worker)
        plane = DataPlane(
            snapshot=await asyncio.to_thread(load_snapshot, engine, unseal),
            peppers=peppers_of(held),
            jurisdictions=settings.jurisdictions,
            bodies=_bodies(stack, settings),
            holds=holds,
            readers=Readers(account_reader(channels), gate_reader(channels), used_reader(engine)),
            spool=spool,
            backends=backends,
            forwarder=Forwarder(transport, backends, spool, RetryBudget(), turns),
            settler=settler,
            slicer=Slicer(holds, leases, tokeniser, spool),
            decisions=decisions,
            idempotency=Idempotency(holds, held.secret_key, _bounds(settings)),
            outage=_outage(telemetry, settler, spool, leases, settings),
            calibration=calibration,
            prefixes=Prefixes(held.secret_key),
            shadows=_shadows(telemetry, settings),
            telemetry=telemetry,
            random=Random(os.urandom(16)),  # noqa: S311 - routing draws, not secrets
            drain_left_s=settings.disconnect_drain_seconds,
        )
        _show(telemetry, plane, transport, decisions)
        refresher, whole = Refresher(plane, engine, unseal, loaded_us), Whole(plane, holds)
        await whole.look()
        _keep_going(
            stack,
            *_changing(settings, refresher, leases, turns),
            whole.keep_looking(),
            *upkeep(plane, holds, settler, leases, tokeniser),
            *_telling(channels, f"{socket.gethostname()}/{worker}", plane, settler),
            keep_looking(channels, plane, _patience(settings)),
            telemetry.watch_loop(),
        )
        stack.push_async_callback(_last_settlements, settler, leases, holds)
        yield Data(plane, transport, channels, spool, telemetry, whole)


def _secrets(settings: Settings) -> tuple[secrets.Secrets, Unseal]:
    held = secrets.load(settings)
    return held, unsealer(Sealer(held.secret_key))


def _changing(
    settings: Settings, refresher: Refresher, leases: Leases, turns: Turns
) -> tuple[Coroutine[Any, Any, None], ...]:
    """What others have changed, and want of a worker."""
    where = address.parse(settings.redis_url)
    return refresher.run(), bus.listen(where, refresher.told, leases.recalled, turns.nudged)


def _telling(
    channels: Channels, name: str, plane: DataPlane, settler: Settler
) -> tuple[Coroutine[Any, Any, None], ...]:
    """What a worker says of itself and of its backends, by its name."""
    return (
        keep_reporting(channels, name, plane, settler),
        keep_sharing(channels, name, plane.backends),
    )


def _bodies(stack: AsyncExitStack, settings: Settings) -> Bodies:
    large = stack.enter_context(closing(LargeBodies()))
    return Bodies(settings.max_body_bytes, Room(settings.reading_bytes), large)


def _outage(
    telemetry: Telemetry, settler: Settler, spool: Spool, leases: Leases, settings: Settings
) -> Outage:
    outage = Outage(
        spool,
        leases,
        lambda: settler.waiting,
        workers=settings.workers,
        limits_open=settings.limits_in_outage == "open",
    )
    telemetry.gauge(
        names.OUTAGE_ADMISSIONS,
        "Requests admitted while the quota store did not answer: paid for by leases, or open.",
        lambda: outage.admitted,
        names.KIND,
        unit="{request}",
    )
    return outage


def _shadows(telemetry: Telemetry, settings: Settings) -> MakeShadows:
    ended = telemetry.counter(
        names.SHADOWS,
        "Requests that an experiment sent a second time, by what became of them: served, failed, "
        "refused, shed, cut.",
        names.OUTCOME,
        unit="{request}",
    )
    return partial(Shadows, most=settings.shadow_requests, ended=ended)


def _turns(
    stack: AsyncExitStack,
    telemetry: Telemetry,
    channels: Channels,
    spool: Spool,
    settings: Settings,
    worker: int,
) -> Turns:
    waited = telemetry.seconds(
        names.QUEUE_WAIT, "How long requests waited for a backend that was full.", names.HTTP_US
    )
    shed = telemetry.counter(
        names.QUEUE_SHED,
        "Requests turned away because every backend for them was full.",
        names.REASON,
        unit="{request}",
    )
    shares = (worker % settings.workers, settings.workers)
    bounds = QueueBounds(settings.queue_seconds, settings.queue_length)
    turns = Turns(SlotStore(channels), spool.name, shares, bounds, Figures(waited, shed))
    stack.push_async_callback(turns.end)
    telemetry.gauge(
        names.QUEUE_LENGTH,
        "Requests that wait for a backend that is full.",
        lambda: {(desk.backend_id,): len(desk.queue) for desk in turns.desks},
        names.BACKEND,
        unit="{request}",
    )
    telemetry.gauge(
        names.SLOTS,
        "Slots of backends with a bound: lent to workers, and those with a request in them.",
        lambda: {
            (desk.backend_id, kind): figure
            for desk in turns.desks
            for kind, figure in (("lent", desk.slots), ("busy", desk.busy))
        },
        names.BACKEND,
        names.KIND,
        unit="{slot}",
    )
    return turns


def _opened_transport(stack: AsyncExitStack) -> Transport:
    transport = Transport(max_connections=most_exchanges())
    stack.push_async_callback(transport.close)
    return transport


def _leases(holds: HoldStore, spool: Spool, settings: Settings) -> Leases:
    return Leases(holds, spool, seconds=settings.lease_seconds, workers=settings.workers)


def _opened_spool(stack: AsyncExitStack, settings: Settings, worker: int) -> Spool:
    spool = Spool.open(settings.spool_dir, f"data-{worker}")
    stack.push_async_callback(spool.close)
    return spool


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        ttl_ms=settings.idempotency_seconds * 1000,
        most_keys=settings.idempotency_keys,
        most_bytes=settings.stored_answer_bytes,
    )


def _patience(settings: Settings) -> Patience:
    return Patience(settings.ledger_away_seconds * 1000, settings.journal_bytes)


def _show(
    telemetry: Telemetry, plane: DataPlane, transport: Transport, decisions: Decisions
) -> None:
    telemetry.gauge(
        names.DECISIONS_UNRECORDED,
        "Decisions on refused requests that were not written down: too many, or no store.",
        lambda: decisions.unrecorded,
        unit="{decision}",
    )
    telemetry.gauge(
        names.HTTP_SERVER_ACTIVE, "Requests that hold something.", lambda: len(plane.in_flight)
    )
    telemetry.gauge(
        names.HTTP_CLIENT_CONNECTIONS,
        "Connections to backends.",
        lambda: _by_state(transport.totals()),
        names.CONNECTION_STATE,
        unit="{connection}",
    )


def _by_state(stats: PoolStats) -> dict[tuple[str, ...], int]:
    return {("active",): stats.busy, ("idle",): stats.idle}


def _keep_going(stack: AsyncExitStack, *loops: Coroutine[Any, Any, None]) -> None:
    """What a worker does beside serving, until the stack unwinds."""
    for loop in loops:
        stack.push_async_callback(_end, asyncio.create_task(loop))


async def _last_settlements(settler: Settler, leases: Leases, holds: HoldStore) -> None:
    """Before the loops end, what is still owed to the store is given a last chance."""
    await settler.retry_waiting()
    await leases.end()
    await holds.drain(5.0)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
