"""What the admin plane is made of."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from gateway import secrets
from gateway.admin.deps import AdminDeps
from gateway.settings import Settings
from gateway.stores.redis import bus
from gateway.stores.redis.accounts import account_reader
from gateway.stores.redis.client import open_client
from gateway.stores.sql.seal import Sealer
from gateway.telemetry.service import Telemetry
from gateway.wiring.parts import opened_engine, peppers_of, started_telemetry


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
        client = open_client(settings.redis_url)
        stack.push_async_callback(client.aclose)

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
