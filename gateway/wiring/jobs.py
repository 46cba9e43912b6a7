"""What the background jobs are made of."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from gateway import secrets
from gateway.backends.lookout import Lookout
from gateway.backends.webhook import Sender
from gateway.jobs.deps import Checked, JobDeps
from gateway.jobs.tell_alerts import Webhooks
from gateway.settings import Settings
from gateway.stores.redis.client import open_client
from gateway.stores.sql.seal import Sealer
from gateway.telemetry import names
from gateway.telemetry.service import Telemetry
from gateway.wiring.parts import hold_store, opened_channels, opened_engine, started_telemetry


@asynccontextmanager
async def open_jobs(settings: Settings, name: str) -> AsyncIterator[JobDeps]:
    """Everything the jobs need, open for as long as the block runs."""
    async with AsyncExitStack() as stack:
        telemetry = await started_telemetry(stack, settings, "jobs")
        engine = opened_engine(stack, settings)
        channels = await opened_channels(stack, settings)
        client = open_client(settings.redis_url)
        stack.push_async_callback(client.aclose)
        sender = Sender()
        stack.push_async_callback(sender.close)
        lookout = Lookout() if settings.engine_metrics == "on" else None
        if lookout is not None:
            stack.push_async_callback(lookout.close)
        checked = Checked()
        _show(telemetry, checked)
        yield JobDeps(
            engine=engine,
            client=client,
            holds=hold_store(channels, settings),
            spool_dir=settings.spool_dir,
            name=name,
            decision_days=settings.decision_days,
            alert_days=settings.alert_days,
            webhooks=Webhooks(
                sender,
                Sealer(secrets.load(settings).secret_key),
                settings.find_admin_url(),
            ),
            lookout=lookout,
            checked=checked,
        )


def _show(telemetry: Telemetry, checked: Checked) -> None:
    telemetry.gauge(
        names.LEDGER_FAULTS,
        "Faults that the ledger's last self-check found.",
        lambda: checked.faults,
        unit="{fault}",
        greatest=True,
    )
    telemetry.gauge(
        names.LEDGER_CHECKED,
        "When the ledger's last self-check ended, in Unix seconds; 0 before the first.",
        lambda: checked.at_us // 1_000_000,
        unit="s",
        greatest=True,
    )
