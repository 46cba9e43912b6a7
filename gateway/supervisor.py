"""Keeps a set of processes alive: starts them, mends what dies, gives up on what cannot live.

Every child holds a lock on `run/NAME.lock`, which carries its pid. The kernel drops the lock with
the child's last breath, so a supervisor can tell the left-overs of a killed one from strangers.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from gateway import guard
from gateway.clock import monotonic_us
from gateway.secrets import make_private
from gateway.settings import StartError

_FIRST_DELAY_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 5.0
_MOST_DEATHS: Final = 6
_WITHIN_US: Final = 60_000_000
_WRONG_USAGE: Final = 2
_HURRIED_SECONDS: Final = 2.0
_LEFTOVER_US: Final = 3_000_000
HOME_LOCK: Final = "up.lock"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One process to keep alive. It inherits `fds`; no secret ever stands in `command`."""

    name: str
    command: tuple[str, ...]
    fds: tuple[int, ...] = ()
    environ: dict[str, str] | None = None  # None: this process's own


class Deaths:
    """How long to wait before the next start, or that there should be none."""

    def __init__(self) -> None:
        self._at_us: deque[int] = deque(maxlen=_MOST_DEATHS)

    def delay_after(self, at_us: int) -> float | None:
        """Seconds to wait, doubling with the deaths of the last minute; None after the sixth."""
        self._at_us.append(at_us)
        recent = sum(1 for death_us in self._at_us if at_us - death_us <= _WITHIN_US)
        if recent >= _MOST_DEATHS:
            return None
        return min(_FIRST_DELAY_SECONDS * 2.0 ** (recent - 1), _LONGEST_DELAY_SECONDS)


class Child:
    """One part and its life: `run` ends once `stopping` is set and the process is gone."""

    def __init__(
        self, part: Part, spawn: Callable[[Part], Awaitable[Process]], *, vital: bool = True
    ) -> None:
        """`vital`: the house cannot go on without it."""
        self.part = part
        self.vital = vital
        self.stopping = asyncio.Event()
        self._spawn = spawn
        self._process: Process | None = None
        self._deaths = Deaths()

    async def run_once(self) -> int:
        """Starts it and waits for its end; its exit status."""
        self._process = await self._spawn(self.part)
        if self.stopping.is_set():
            self.signal(signal.SIGTERM)
        return await self._process.wait()

    async def run(self, say: Callable[[str], None]) -> str | None:
        """Keeps it alive. None after a wanted end, else why it cannot be kept alive."""
        while not self.stopping.is_set():
            try:
                status = await self.run_once()
                how, hopeless = _ended(status), status == _WRONG_USAGE
            except (OSError, StartError) as error:
                how, hopeless = f"could not be started: {error}", False
            if self.stopping.is_set():
                break
            delay = None if hopeless else self._deaths.delay_after(monotonic_us())
            if delay is None:
                return f"{self.part.name} cannot be kept alive: it {how}"
            say(f"{self.part.name} {how}; starting it again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), delay)
        return None

    def signal(self, number: int) -> bool:
        """Whether there was a living process to send it to."""
        if self._process is None or self._process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return True


class Supervisor:
    """Owns the processes of one home. `say` gets a line for whatever an operator should know.

    To be made inside a running event loop. StartError while another one owns the home.
    """

    def __init__(self, run_dir: Path, say: Callable[[str], None]) -> None:
        make_private(run_dir)
        self._run_dir = run_dir
        self._say = say
        self._home_lock = _take_home(run_dir)
        self._lives: dict[str, tuple[Child, asyncio.Task[None]]] = {}
        self.hurry = asyncio.Event()  # set by a second signal: two seconds for each to end
        self.broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def clear_leftovers(self) -> None:
        """Ends what a killed supervisor of this home left behind, gently first."""
        locks = [path for path in self._run_dir.glob("*.lock") if path.name != HOME_LOCK]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for path in locks:
                if (pid := _holder(path)) is not None:
                    self._say(f"ending {path.stem} (pid {pid}), left over from a killed start")
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            deadline_us = monotonic_us() + _LEFTOVER_US
            while any(_holder(path) for path in locks):
                if monotonic_us() > deadline_us:
                    break
                await asyncio.sleep(0.05)

    def keep(self, part: Part) -> None:
        """Starts the part, and again whenever it dies, until `stop`; `broken` says if it cannot."""
        child = Child(part, self._spawn)
        self._lives[part.name] = (child, asyncio.create_task(self._keep(child)))

    async def try_out(self, part: Part, ready_fd: int, seconds: float) -> bool:
        """As `keep` if the part writes to the pipe behind `ready_fd` in time, else it is stopped
        again, and nothing is broken by it.
        """
        child = Child(part, self._spawn, vital=False)
        self._lives[part.name] = (child, asyncio.create_task(self._keep(child)))
        if await _readable(ready_fd, seconds):
            child.vital = True
            return True
        await self.stop([part.name], _HURRIED_SECONDS)
        return False

    async def run_once(self, part: Part) -> int:
        """Runs a command to its end; its exit status."""
        child = Child(part, self._spawn)
        task = asyncio.create_task(child.run_once())
        self._lives[part.name] = (child, asyncio.create_task(_done(task)))
        return await task

    def names(self) -> tuple[str, ...]:
        """The parts that are not stopped, in the order of their start."""
        return tuple(self._lives)

    async def stop(
        self, names: Iterable[str], seconds: float, number: signal.Signals = signal.SIGTERM
    ) -> None:
        """The signal, up to `seconds` to end (two once `hurry` is set), then SIGKILL."""
        lives = [self._lives.pop(name) for name in names if name in self._lives]
        if not lives:
            return
        for child, _ in lives:
            child.stopping.set()
            child.signal(number)
        tasks = {task for _, task in lives}
        everyone = asyncio.create_task(asyncio.wait(tasks))
        hurried = asyncio.create_task(self.hurry.wait())
        await asyncio.wait({everyone, hurried}, timeout=seconds, return_when="FIRST_COMPLETED")
        if self.hurry.is_set():
            for child, _ in lives:
                child.signal(signal.SIGINT)
            await asyncio.wait({everyone}, timeout=_HURRIED_SECONDS)
        hurried.cancel()
        for child, task in lives:
            if not task.done() and child.signal(signal.SIGKILL):
                self._say(f"{child.part.name} did not end in time and was killed")
        await everyone

    def close(self) -> None:
        """Gives the home free; to be called once everything is stopped."""
        os.close(self._home_lock)

    async def _keep(self, child: Child) -> None:
        message = await child.run(self._say)
        if message is not None and not child.vital:
            self._say(message)
        elif message is not None and not self.broken.done():
            self.broken.set_result(message)

    async def _spawn(self, part: Part) -> Process:
        lock = _take(self._run_dir / f"{part.name}.lock")
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-IS",
                str(guard.__file__),
                str(os.getpid()),
                *part.command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(*part.fds, lock),
                env=part.environ,
                start_new_session=True,  # a Ctrl-C at the terminal is ours to pass on, in order
            )
            _write_pid(lock, process.pid)
        finally:
            os.close(lock)
        return process


async def _readable(fd: int, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(fd, told.set)
    try:
        await asyncio.wait_for(told.wait(), seconds)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True


async def _done(task: asyncio.Task[int]) -> None:
    await asyncio.wait({task})


def _take_home(run_dir: Path) -> int:
    """The lock that says a home has its supervisor. StartError while another one holds it."""
    path = run_dir / HOME_LOCK
    try:
        lock = _take(path)
    except StartError as error:
        raise StartError(
            f"meterhouse already runs in {run_dir.parent} (pid {_holder(path)}); "
            "stop it first, or give this one another METERHOUSE_HOME"
        ) from error
    _write_pid(lock, os.getpid())
    return lock


def _take(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StartError(f"{path} is held by a process that still runs") from error
    return lock


def _write_pid(lock: int, pid: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % pid, 0)


def _holder(path: Path) -> int | None:
    """The pid of the living process that holds this lock; None when nobody does."""
    try:
        os.close(_take(path))
    except StartError:
        text = path.read_text(encoding="ascii").strip()
        return int(text) if text.isdigit() else None
    return None


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
