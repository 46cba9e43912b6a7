"""`meterhouse version`: which release this is."""

import argparse
import json
from typing import Any

from gateway import __version__


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("version", help="print the release")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    print(json.dumps({"version": __version__}) if args.json else f"meterhouse {__version__}")
    return 0
