"""`meterhouse serve`: one process of one plane, on a socket of its own or an inherited one."""

import argparse
import os
from typing import Any

from gateway.settings import Settings


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("serve", help="run one process of one plane, without the rest")
    parser.add_argument("--plane", choices=("data", "admin"), default="data")
    parser.add_argument(
        "--worker", type=int, default=0, help="number of this data plane process; names its spool"
    )
    parser.add_argument("--fd", type=int, help="a listening socket that this process inherited")
    parser.add_argument(
        "--wait-fd", type=int, help="an inherited pipe; begin once its other end is closed"
    )


def run(args: argparse.Namespace) -> int:
    import uvloop

    from gateway import app
    from gateway.listeners import bind

    settings = Settings.from_env(os.environ)
    data = args.plane == "data"
    if args.fd is not None:
        fd = args.fd
    elif data:
        fd = bind(settings.host, settings.port, "PORT").detach()
    else:
        fd = bind(settings.admin_host, settings.admin_port, "ADMIN_LISTEN").detach()
    if args.wait_fd is not None:
        os.read(args.wait_fd, 1)
        os.close(args.wait_fd)
    if data:
        uvloop.run(app.serve_data(settings, fd, args.worker))
    else:
        uvloop.run(app.serve_admin(settings, fd))
    return 0
