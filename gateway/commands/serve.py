"""`meterhouse serve`: one process of one plane, on a socket of its own or an inherited one."""

import argparse
import gc
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from gateway.descriptors import raise_limit
from gateway.settings import Settings


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("serve", help="run one process of one plane, without the rest")
    parser.add_argument("--plane", choices=("data", "admin"), default="data")
    parser.add_argument(
        "--worker", type=int, default=0, help="number of this data plane process; names its spool"
    )
    parser.add_argument("--fd", type=int, help="a listening socket that this process inherited")
    parser.add_argument(
        "--ready-fd",
        type=int,
        help="an inherited pipe; a byte is written once connections are taken",
    )
    parser.add_argument(
        "--wait-fd", type=int, help="an inherited pipe; begin once its other end is closed"
    )


def run(args: argparse.Namespace) -> int:
    settings = Settings.from_env(os.environ)
    fd = args.fd if args.fd is not None else _bound(settings, args.plane)
    raise_limit()
    # What is loaded now stays: neither this loading nor any later collection need look through it.
    gc.disable()
    import uvloop

    serve = _plane(settings, args)
    gc.freeze()
    gc.enable()
    if args.wait_fd is not None:
        os.read(args.wait_fd, 1)
        os.close(args.wait_fd)
    uvloop.run(serve(fd))
    return 0


def _teller(ready_fd: int | None) -> Callable[[], None]:
    """Says on the pipe, if there is one, that connections are taken."""

    def tell() -> None:
        if ready_fd is not None:
            with suppress(OSError):  # nobody listens any more
                os.write(ready_fd, b"1")

    return tell


def _bound(settings: Settings, plane: str) -> int:
    from gateway.listeners import bind

    if plane == "data":
        return bind(settings.host, settings.port, "PORT").detach()
    return bind(settings.admin_host, settings.admin_port, "ADMIN_LISTEN").detach()


def _plane(
    settings: Settings, args: argparse.Namespace
) -> Callable[[int], Coroutine[Any, Any, None]]:
    """Loads the code of the plane that was asked for, and of no other."""
    if args.plane == "data":
        from gateway.app.data import serve_data

        return lambda fd: serve_data(settings, fd, args.worker, _teller(args.ready_fd))
    from gateway.app.admin import serve_admin

    return lambda fd: serve_admin(settings, fd, _teller(args.ready_fd))
