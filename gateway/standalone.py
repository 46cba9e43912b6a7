"""The whole product on one machine: which processes, in which order they start and stop.

Store and migration first, then data plane and admin API, then jobs. At the end the data plane goes
first, so that nothing new begins; then what records it; the store last.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

import gateway
from gateway import demo, embedded, welcome
from gateway.clock import monotonic_us
from gateway.listeners import bind
from gateway.secrets import write_private
from gateway.settings import PREFIX, Settings, socket_path, url_host
from gateway.stores.sql import revisions
from gateway.supervisor import Part, Supervisor

# What a worker may take beside its drain, most of it for clients that neither send nor read on:
# leave 6 s, last answers 15 s, what is cut short 5 s, last settlements.
_SETTLE_SECONDS: Final = 35
_STOP_SECONDS: Final = 20
_STORE_READY_SECONDS: Final = 60  # a large append-only file takes a while to read
_LOOK_EVERY_SECONDS: Final = 0.05
_READY_SECONDS: Final = 60  # for a process that replaces another
_STORE: Final = "store"


def say(line: str) -> None:
    """A line for the operator; standard error, so that standard output stays for what is asked."""
    _put(sys.__stderr__, f"meterhouse: {line}\n")


def _put(stream: TextIO | None, text: str) -> None:
    """Written past the stream's buffer, which would keep what a terminal that is gone did not take
    and have its flush fail at the end. What nobody can be told is done all the same.
    """
    if stream is not None:  # None: it was closed from the start
        with contextlib.suppress(OSError, ValueError):
            os.write(stream.fileno(), text.encode(errors="backslashreplace"))


class Standalone:
    """To be made inside a running event loop. StartError while the home has its processes."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._began_us = monotonic_us()
        self._settings = settings
        self._environ = dict(environ)
        self._supervisor = Supervisor(settings.run_dir, say)
        self._listeners: list[socket.socket] = []
        self._pipes: list[int] = []
        self._generation = 0  # of the planes: each roll begins another

    @property
    def broken(self) -> asyncio.Future[str]:
        """Done once a process cannot be kept alive, with what to tell the operator."""
        return self._supervisor.broken

    def hurry(self) -> None:
        self._supervisor.hurry.set()

    async def run(self, with_demo: bool) -> None:
        """Starts everything, says so, and stays. Returns only when something could not be done."""
        await self._supervisor.clear_leftovers()
        data, admin = self._listen()
        settings = self._settings
        if with_demo:
            for part in demo.backends(settings, self._part_environ()):
                self._supervisor.keep(part)
        if settings.redis_embedded:
            self._supervisor.keep(Part(name=_STORE, command=embedded.command(settings)))
        # Planes load their code while the stores come up; the gate opens once these are ready.
        gate, opener = os.pipe()
        for worker in range(settings.workers):
            name = f"data-{worker}"
            self._supervisor.keep(self._plane(name, "data", data, worker, "--wait-fd", gate))
        self._supervisor.keep(self._plane("admin", "admin", admin, 0, "--wait-fd", gate))
        if not await self._prepare():
            return
        os.close(opener)
        # Only the jobs say that the counters of a store that has just started are whole.
        self._supervisor.keep(self._gateway_part("jobs", "jobs"))
        await self._until_ready()
        if with_demo and await self._supervisor.run_once(demo.tour(settings, self._part_environ())):
            say("the demo's tour did not end well; everything stays up for a look")
        self._welcome(with_demo)
        await asyncio.Event().wait()

    async def roll(self) -> None:
        """Every plane and the jobs started afresh, one after another, with the code that is
        installed now. The new process takes connections before the old one is told to go, so no
        client is turned away. One that does not come up leaves the old one where it is.
        """
        before = self._supervisor.names()
        if "jobs" not in before:
            say("not started yet: nothing is rolled")
            return
        if await self._supervisor.run_once(self._gateway_part("migrate", "migrate", "--quiet")):
            say("not rolled: the database could not be brought to the new release's schema")
            return
        self._generation += 1
        data, admin = self._listeners
        seconds = self._settings.drain_seconds + _SETTLE_SECONDS
        for worker in range(self._settings.workers):
            name = f"data-{worker}"
            if not await self._replace(before, name, "data", data, worker, seconds):
                return
        if await self._replace(before, "admin", "admin", admin, 0, _STOP_SECONDS):
            await self._supervisor.stop(["jobs"], _STOP_SECONDS)
            self._supervisor.keep(self._gateway_part("jobs", "jobs"))
            say("rolled: every process is a new one")

    async def _replace(
        self,
        running: tuple[str, ...],
        name: str,
        plane: str,
        listener: socket.socket,
        worker: int,
        seconds: float,
    ) -> bool:
        """Whether the new one is there and the old one gone."""
        heard, told = os.pipe()
        self._pipes.append(told)  # should the new one die, the next start inherits it as well
        try:
            part = self._plane(
                f"{name}.{self._generation}", plane, listener, worker, "--ready-fd", told
            )
            if not await self._supervisor.try_out(part, heard, _READY_SECONDS):
                say(f"not rolled: the new {name} does not come up; the old one stays")
                return False
        finally:
            os.close(heard)
        old = [each for each in running if each == name or each.startswith(f"{name}.")]
        await self._supervisor.stop(old, seconds)
        return True

    async def stop(self, number: signal.Signals) -> None:
        """Drains and ends everything, in order. SIGTERM lets clients take their leave first."""
        for listener in self._listeners:
            listener.close()
        for pipe in self._pipes:
            os.close(pipe)
        (self._settings.run_dir / "endpoints.json").unlink(missing_ok=True)
        names = self._supervisor.names()
        data = [name for name in names if name.startswith("data-")]
        seconds = self._settings.drain_seconds + _SETTLE_SECONDS
        await self._supervisor.stop(data, seconds, number)
        others = [name for name in names if name != _STORE]
        await self._supervisor.stop(others, _STOP_SECONDS, signal.SIGINT)  # no leave to take
        await self._supervisor.stop([_STORE], _STOP_SECONDS)
        self._supervisor.close()

    def _listen(self) -> tuple[socket.socket, socket.socket]:
        """Binds both listeners; ports that were left to chance are settled from here on."""
        settings = self._settings
        data = bind(settings.host, settings.port, "PORT")
        self._listeners.append(data)
        admin = bind(settings.admin_host, settings.admin_port, "ADMIN_LISTEN")
        self._listeners.append(admin)
        ports = data.getsockname()[1], admin.getsockname()[1]
        host = f"[{settings.admin_host}]" if ":" in settings.admin_host else settings.admin_host
        self._environ |= {
            f"{PREFIX}HOME": str(settings.home),
            f"{PREFIX}HOST": settings.host,
            f"{PREFIX}PORT": str(ports[0]),
            f"{PREFIX}ADMIN_LISTEN": f"{host}:{ports[1]}",
            f"{PREFIX}WORKERS": str(settings.workers),
        }
        self._settings = Settings.from_env(self._environ)
        return data, admin

    async def _prepare(self) -> bool:
        """The schema brought up to date while the store comes up."""
        migrated, answered = await asyncio.gather(self._migrated(), self._store_answers())
        if not answered:
            say(f"the embedded store does not answer; see {self._settings.log_dir / 'store.log'}")
        if not migrated:
            say("the database could not be brought to this release's schema")
        return answered and migrated

    async def _migrated(self) -> bool:
        if revisions.known_current(self._settings.database_url):
            return True
        part = self._gateway_part("migrate", "migrate", "--quiet")
        return await self._supervisor.run_once(part) == 0

    async def _store_answers(self) -> bool:
        """A store that is not ours to start is not ours to wait for either."""
        if not self._settings.redis_embedded:
            return True
        path = socket_path(self._settings.home)
        return await embedded.until_ready(path, _STORE_READY_SECONDS)

    async def _until_ready(self) -> None:
        settings = self._settings
        await _answers(settings.host, settings.port, "/readyz")
        await _answers(settings.admin_host, settings.admin_port, "/healthz")
        endpoints = {
            "gateway": self._gateway_url,
            "admin": self._admin_url,
            "jurisdictions": sorted(settings.jurisdictions),
        }
        write_private(settings.run_dir / "endpoints.json", json.dumps(endpoints) + "\n")

    def _welcome(self, with_demo: bool) -> None:
        seconds = (monotonic_us() - self._began_us) / 1_000_000
        block = welcome.text(self._settings, self._gateway_url, self._admin_url, with_demo)
        _put(sys.__stdout__, f"\nMeterhouse is ready ({seconds:.1f} s).\n\n{block}")

    @property
    def _gateway_url(self) -> str:
        return f"http://{url_host(self._settings.host)}:{self._settings.port}"

    @property
    def _admin_url(self) -> str:
        return f"http://{url_host(self._settings.admin_host)}:{self._settings.admin_port}"

    def _plane(
        self, name: str, plane: str, listener: socket.socket, worker: int, pipe: str, end: int
    ) -> Part:
        """A plane on its listener, with one end of a pipe to wait for or to tell on."""
        words = ("serve", "--plane", plane, "--worker", str(worker))
        inherited = ("--fd", str(listener.fileno()), pipe, str(end))
        return self._gateway_part(name, *words, *inherited, fds=(listener.fileno(), end))

    def _gateway_part(self, name: str, *words: str, fds: tuple[int, ...] = ()) -> Part:
        return Part(
            name=name,
            command=(sys.executable, "-P", "-m", "gateway", *words),
            fds=fds,
            environ=self._part_environ(),
        )

    def _part_environ(self) -> dict[str, str]:
        """For our own processes: they import this very package, wherever they are started."""
        root = str(Path(gateway.__file__).parent.parent)
        return self._environ | {"PYTHONPATH": root}


async def _answers(host: str, port: int, path: str) -> None:
    """Waits until a GET is answered with 200."""
    host = host if host not in {"", "0.0.0.0", "::"} else "localhost"  # noqa: S104 - not bound
    request = f"GET {path} HTTP/1.1\r\nhost: {url_host(host)}\r\nconnection: close\r\n\r\n"
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request.encode("ascii"))
                if (await reader.readline()).split(b" ")[1:2] == [b"200"]:
                    return
            finally:
                writer.close()
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
