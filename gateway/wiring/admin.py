"""What the admin plane is made of."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import msgspec
from sqlalchemy import Engine

from gateway import secrets
from gateway.admin.deps import AdminDeps
from gateway.settings import Settings
from gateway.signing import Signer
from gateway.stores.redis import address, bus
from gateway.stores.redis.accounts import account_reader
from gateway.stores.redis.channel import Channels
from gateway.stores.redis.keys import CLUSTER_TAGS, ONE_TAG
from gateway.stores.sql.seal import Sealer
from gateway.telemetry import names
from gateway.telemetry.service import Telemetry
from gateway.wiring.parts import opened_channels, opened_engine, peppers_of, started_telemetry

Explain = Callable[[Any], Awaitable[dict[str, Any]]]

_STORE_PATIENCE_S: Final = 1.0  # it answers without the store, and says so


class Admin(msgspec.Struct, frozen=True):
    """The admin plane, ready to be mounted."""

    deps: AdminDeps
    telemetry: Telemetry


@asynccontextmanager
async def open_admin(settings: Settings) -> AsyncIterator[Admin]:
    """Everything the admin plane needs, open for as long as the block runs."""
    held = secrets.load(settings)
    async with AsyncExitStack() as stack:
        telemetry = await started_telemetry(stack, settings, "admin")
        engine = opened_engine(stack, settings)
        channels = await opened_channels(stack, settings, _STORE_PATIENCE_S)

        refusals = telemetry.counter(
            names.ADMIN_REFUSALS, "Calls of the admin API that were not let in or not allowed.",
            names.CODE, unit="{request}",
        )  # fmt: skip

        async def publish(revision: int) -> None:
            await bus.publish(channels, revision)

        deps = AdminDeps(
            engine=engine,
            admin_token=held.admin_token,
            peppers=peppers_of(held),
            sealer=Sealer(held.secret_key),
            signer=Signer(held.secret_key),
            publish=publish,
            account=account_reader(channels),
            store=channels,
            tags=CLUSTER_TAGS if address.parse(settings.redis_url).kind == "cluster" else ONE_TAG,
            jurisdictions=settings.jurisdictions,
            explain=_explaining(engine, settings.jurisdictions, channels),
            refused=lambda code: refusals.child(code).inc(),
            tenants_see_cost=settings.tenants_see_cost == "on",
        )
        yield Admin(deps, telemetry)


def _explaining(engine: Engine, jurisdictions: frozenset[str], store: Channels) -> Explain:
    """Loads the data plane's snapshot on the first question: an idle admin process has no use for
    it.
    """

    async def explain(asked: Any) -> dict[str, Any]:
        from gateway.explaining import explainer  # noqa: PLC0415 - see above

        return await explainer(engine, jurisdictions, store)(asked)

    return explain
