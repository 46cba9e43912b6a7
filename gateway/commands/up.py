"""`meterhouse up`: everything on one machine, kept alive, until a signal drains it."""

import argparse
import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

from gateway import demo, secrets
from gateway.settings import PREFIX, Settings
from gateway.standalone import Standalone, say


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("up", help="start everything here and keep it running")
    parser.add_argument("--demo", action="store_true", help="with local models, data and traffic")
    parser.add_argument("--port", help="of the data plane; the admin API takes the next one")
    parser.add_argument("--home", help="the directory that holds all state")
    parser.add_argument("--workers", help="how many data plane processes")


def run(args: argparse.Namespace) -> int:
    environ = dict(os.environ)
    for name in ("port", "home", "workers"):
        if (value := getattr(args, name)) is not None:
            environ[PREFIX + name.upper()] = value
    if args.demo and not environ.get(f"{PREFIX}JURISDICTION", "").strip():
        environ[f"{PREFIX}JURISDICTION"] = demo.JURISDICTION
    settings = Settings.from_env(environ)
    secrets.load(settings)  # made now, so that no two children make them
    if args.demo:
        demo.check()
    return asyncio.run(_up(settings, environ, args.demo))


async def _up(settings: Settings, environ: Mapping[str, str], with_demo: bool) -> int:
    """1 when something could not be started or kept alive, else 0."""
    house = Standalone(settings, environ)
    asked = asyncio.Event()
    how = signal.SIGTERM
    rolls: set[asyncio.Task[None]] = set()

    def on_signal(number: signal.Signals) -> None:
        nonlocal how
        if asked.is_set():
            house.hurry()
            say("hurrying")
        else:
            how = signal.SIGTERM if number is signal.SIGTERM else signal.SIGINT
            asked.set()
            say(f"{number.name}: draining for at most {settings.drain_seconds} s; again to hurry")

    def on_roll() -> None:
        if rolls or asked.is_set():
            say("SIGUSR1: there is a roll or a stop under way already")
            return
        roll = asyncio.create_task(house.roll())
        rolls.add(roll)
        roll.add_done_callback(rolls.discard)
        say("SIGUSR1: rolling; every process is replaced, one after another")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGUSR1, on_roll)
    try:
        return await _until_asked(house, asked, with_demo)
    finally:
        for roll in rolls:
            roll.cancel()
        await asyncio.gather(*rolls, return_exceptions=True)
        await house.stop(how)
        if asked.is_set():
            say("stopped")


async def _until_asked(house: Standalone, asked: asyncio.Event, with_demo: bool) -> int:
    stopping = asyncio.create_task(asked.wait())
    running = asyncio.create_task(house.run(with_demo))
    ends: set[asyncio.Future[Any]] = {stopping, running, house.broken}
    try:
        await asyncio.wait(ends, return_when="FIRST_COMPLETED")
        if house.broken.done():
            say(house.broken.result())
            return 1
        if running.done():
            running.result()  # raises what kept it from starting
            return 1
        return 0
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
