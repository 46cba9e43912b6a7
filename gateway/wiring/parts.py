"""What processes of more than one kind are made of."""

import asyncio
import contextlib
from contextlib import AsyncExitStack
from typing import Final

from sqlalchemy import Engine

import gateway
from gateway.keyring import Peppers
from gateway.secrets import Secrets
from gateway.settings import Settings
from gateway.stores.redis import address
from gateway.stores.redis.channel import Channels, StoreUnavailable
from gateway.stores.redis.holds import HoldStore
from gateway.stores.sql.engine import close, open_engine
from gateway.telemetry.sampling import ratio_of
from gateway.telemetry.service import Telemetry, TelemetrySettings

_STORE_PATIENCE_S: Final = 30.0


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


async def started_telemetry(stack: AsyncExitStack, settings: Settings, process: str) -> Telemetry:
    telemetry = telemetry_of(settings, process)
    telemetry.start()
    stack.push_async_callback(asyncio.to_thread, telemetry.close)
    return telemetry


def opened_engine(stack: AsyncExitStack, settings: Settings) -> Engine:
    engine = open_engine(settings.database_url)
    stack.callback(close, engine)
    return engine


async def opened_channels(
    stack: AsyncExitStack, settings: Settings, within_s: float = _STORE_PATIENCE_S
) -> Channels:
    """Connected, or still trying: a process that outlives its store must also begin without it."""
    channels = Channels(address.parse(settings.redis_url))
    stack.push_async_callback(channels.close)
    with contextlib.suppress(StoreUnavailable):
        await channels.open(within_s)
    return channels


def hold_store(channels: Channels, settings: Settings) -> HoldStore:
    return HoldStore(
        channels,
        admit_within_s=settings.store_timeout_ms / 1000,
        ttl_ms=settings.hold_seconds * 1000,
    )


def peppers_of(held: Secrets) -> Peppers:
    return Peppers(current=held.pepper_version, by_version=held.peppers)
