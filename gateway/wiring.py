"""The one composition root: opens every connection, builds each object once, closes in reverse."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Final

import msgspec
from redis.asyncio import Redis

import gateway
from gateway import secrets
from gateway.admin.deps import AdminDeps
from gateway.backends.health import Backends
from gateway.backends.transport import Transport
from gateway.dataplane.count import Calibration, Tokeniser
from gateway.dataplane.forward import Forwarder
from gateway.dataplane.refresh import Refresher, load_snapshot
from gateway.dataplane.report import keep_reporting
from gateway.dataplane.request import DataPlane
from gateway.dataplane.settle import Settler
from gateway.dataplane.upkeep import keep_holds_alive, settle_what_waits
from gateway.jobs.deps import JobDeps
from gateway.keyring import Peppers
from gateway.secrets import Secrets
from gateway.settings import Settings
from gateway.stores.redis import address, bus
from gateway.stores.redis.accounts import account_reader
from gateway.stores.redis.channel import Channels
from gateway.stores.redis.client import open_client
from gateway.stores.redis.holds import HoldStore, StoreUnavailable
from gateway.stores.spool import Spool
from gateway.stores.sql import rows
from gateway.stores.sql.engine import open_engine
from gateway.stores.sql.seal import Sealer, SealError
from gateway.telemetry import names
from gateway.telemetry.sampling import ratio_of
from gateway.telemetry.service import Telemetry, TelemetrySettings
from policies.failover import RetryBudget

_LOG: Final = logging.getLogger(__name__)
_STORE_PATIENCE_S: Final = 30.0


class Data(msgspec.Struct, frozen=True):
    """A running data plane."""

    plane: DataPlane
    channels: Channels
    spool: Spool
    telemetry: Telemetry


def telemetry_of(settings: Settings, process: str) -> Telemetry:
    """What the process reports to; started by whoever owns it."""
    log = {"stdout": "-", "off": ""}.get(settings.access_log)
    return Telemetry(
        TelemetrySettings(
            run_dir=settings.run_dir,
            process=process,
            sampling_ratio=ratio_of(settings.otel_traces_sampler, settings.otel_traces_sampler_arg),
            export=bool(settings.otlp_endpoint),
            access_log=str(settings.log_dir / "access.jsonl") if log is None else log,
            service_name=settings.otel_service_name,
            service_version=gateway.__version__,
        )
    )


def peppers_of(held: Secrets) -> Peppers:
    return Peppers(current=held.pepper_version, by_version=held.peppers)


def unsealer(sealer: Sealer) -> Callable[[rows.Backend], str | None]:
    """A credential that does not open takes its backend out, not the gateway down: the backend will
    refuse a call without one, and that shows in its breaker and in the log.
    """

    def unseal(backend: rows.Backend) -> str | None:
        if backend.credential_sealed is None:
            return None
        try:
            return sealer.unseal(backend.id, backend.credential_sealed)
        except SealError as fault:
            _LOG.error("backend %s is used without its credential: %s", backend.id, fault)
            return None

    return unseal


@asynccontextmanager
async def open_data(settings: Settings, worker: int) -> AsyncIterator[Data]:
    """Everything a data plane worker needs, open for as long as the block runs."""
    held = secrets.load(settings)
    unseal = unsealer(Sealer(held.secret_key))
    async with AsyncExitStack() as stack:
        telemetry = await _started(stack, settings, f"data-{worker}")
        engine = open_engine(settings.database_url)
        stack.callback(engine.dispose)
        channels = Channels(address.parse(settings.redis_url))
        stack.push_async_callback(channels.close)
        with contextlib.suppress(StoreUnavailable):  # it keeps trying; until then we refuse
            await channels.open(_STORE_PATIENCE_S)
        client = _client(stack, settings)
        spool = Spool.open(settings.spool_dir, f"data-{worker}")
        stack.push_async_callback(spool.close)
        tokeniser = Tokeniser(settings.home / "vocabularies")
        stack.callback(tokeniser.close)
        transport = Transport()
        stack.push_async_callback(transport.close)

        holds = HoldStore(channels, admit_within_s=settings.store_timeout_ms / 1000)
        backends, calibration = Backends(), Calibration()
        settler = Settler(holds, spool, tokeniser, calibration)
        plane = DataPlane(
            snapshot=await asyncio.to_thread(load_snapshot, engine, unseal),
            peppers=peppers_of(held),
            jurisdictions=settings.jurisdictions,
            max_body_bytes=settings.max_body_bytes,
            holds=holds,
            accounts=account_reader(client),
            spool=spool,
            backends=backends,
            forwarder=Forwarder(transport, backends, spool, RetryBudget()),
            settler=settler,
            calibration=calibration,
            telemetry=telemetry,
            random=Random(os.urandom(16)),  # noqa: S311 - routing draws, not secrets
        )
        telemetry.gauge(
            names.HTTP_SERVER_ACTIVE, "Requests that hold something.", lambda: len(plane.in_flight)
        )
        _keep_up(stack, plane, settler, Refresher(plane, engine, unseal), client, worker)
        yield Data(plane, channels, spool, telemetry)


def _keep_up(
    stack: AsyncExitStack,
    plane: DataPlane,
    settler: Settler,
    refresher: Refresher,
    client: Redis,
    worker: int,
) -> None:
    """What a worker does beside serving, until the stack unwinds."""
    name = f"{socket.gethostname()}/{worker}"
    loops = (
        refresher.run(),
        bus.listen(client, refresher.told),
        keep_holds_alive(plane, plane.holds),
        settle_what_waits(settler),
        keep_reporting(client, name, plane, settler),
        plane.telemetry.watch_loop(),
    )
    for loop in loops:
        stack.push_async_callback(_end, asyncio.create_task(loop))
    # Before the loops end, what is still owed to the store is given a last chance.
    stack.push_async_callback(_last_settlements, settler, plane.holds)


async def _started(stack: AsyncExitStack, settings: Settings, process: str) -> Telemetry:
    telemetry = telemetry_of(settings, process)
    telemetry.start()
    stack.push_async_callback(asyncio.to_thread, telemetry.close)
    return telemetry


def _client(stack: AsyncExitStack, settings: Settings) -> Redis:
    client = open_client(settings.redis_url)
    stack.push_async_callback(client.aclose)
    return client


async def _last_settlements(settler: Settler, holds: HoldStore) -> None:
    await settler.retry_waiting()
    await holds.drain(5.0)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Admin(msgspec.Struct, frozen=True):
    """The admin plane, ready to be mounted."""

    deps: AdminDeps
    telemetry: Telemetry


@asynccontextmanager
async def open_admin(settings: Settings) -> AsyncIterator[Admin]:
    """Everything the admin plane needs, open for as long as the block runs."""
    held = secrets.load(settings)
    async with AsyncExitStack() as stack:
        telemetry = await _started(stack, settings, "admin")
        engine = open_engine(settings.database_url)
        stack.callback(engine.dispose)
        client = _client(stack, settings)

        async def publish(revision: int) -> None:
            await bus.publish(client, revision)

        deps = AdminDeps(
            engine=engine,
            admin_token=held.admin_token,
            peppers=peppers_of(held),
            sealer=Sealer(held.secret_key),
            publish=publish,
            account=account_reader(client),
            store=client,
        )
        yield Admin(deps, telemetry)


@asynccontextmanager
async def open_jobs(settings: Settings, name: str) -> AsyncIterator[JobDeps]:
    """Everything the jobs need, open for as long as the block runs."""
    async with AsyncExitStack() as stack:
        await _started(stack, settings, "jobs")
        engine = open_engine(settings.database_url)
        stack.callback(engine.dispose)
        channels = Channels(address.parse(settings.redis_url))
        stack.push_async_callback(channels.close)
        with contextlib.suppress(StoreUnavailable):  # it keeps trying; until then the jobs do too
            await channels.open(_STORE_PATIENCE_S)
        yield JobDeps(
            engine=engine,
            client=_client(stack, settings),
            holds=HoldStore(channels),
            spool_dir=settings.spool_dir,
            name=name,
        )
