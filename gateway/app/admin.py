"""The admin listener: /admin/v1, /metrics, /healthz, /readyz."""

import asyncio
from collections.abc import Callable

from gateway.admin import problems
from gateway.admin.api import create_admin
from gateway.app.server import Application, nobody_asked, serve
from gateway.ops import Readiness, probes, scrape
from gateway.settings import Settings
from gateway.wiring.admin import open_admin


async def serve_admin(
    settings: Settings, sock_fd: int, ready: Callable[[], None] = nobody_asked
) -> None:
    """The admin plane on an inherited listening socket, until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    async with open_admin(settings) as opened:

        def readiness() -> Readiness:
            return Readiness(ready=not stopping.is_set(), checks={})

        app = Application(
            [*create_admin(opened.deps), *probes(readiness), scrape(opened.telemetry)],
            openapi_config=None,
            logging_config=None,
            exception_handlers=problems.HANDLERS,
        )

        async def drain(_seconds: int) -> None:
            return

        await serve(app, sock_fd, stopping, drain, min(settings.drain_seconds, 10), ready)
