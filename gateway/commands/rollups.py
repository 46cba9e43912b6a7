"""`meterhouse rollups`: what they say as one hash, and all of them derived anew from usage rows."""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from gateway.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("rollups", help="look at the rollups, or derive them anew")
    parser.add_argument(
        "--rebuild", action="store_true",
        help="derive them from the usage rows; the gateway may go on meanwhile",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.stores.sql import engine as sql

    engine = sql.open_engine(Settings.from_env(os.environ).database_url)
    try:
        told = _told(engine, rebuild=args.rebuild, quiet=args.json)
    except SQLAlchemyError as error:
        reason = str(error).partition("\n")[0]
        print(f"meterhouse: {reason}", file=sys.stderr)
        if args.rebuild:
            print("meterhouse: what was rebuilt by then stays; run it again", file=sys.stderr)
        return 1
    finally:
        engine.dispose()
    if args.json:
        print(json.dumps(told))
        return 0
    print(f"{told['pending']} deltas are not added yet; reports have them")
    if "before" in told and told["before"] != told["sha256"]:
        print(f"before, the rollups said {told['before']}")
    print(f"the rollups say {told['sha256']}")
    return 0


def _told(engine: "Engine", *, rebuild: bool, quiet: bool) -> dict[str, Any]:
    from gateway.clock import rfc3339
    from gateway.stores.sql import compaction, rebuilding, rollups
    from gateway.stores.sql.engine import reading

    def said() -> str:
        with reading(engine) as connection:
            return rollups.digest(connection)

    if not rebuild:
        return {"sha256": said(), "pending": compaction.pending(engine)}
    before = said()
    for each in rebuilding.rebuild(engine):
        if not quiet:
            print(f"{rfc3339(each.start_us)} to {rfc3339(each.end_us)}: {each.rollups} rollups")
            sys.stdout.flush()
    return {"before": before, "sha256": said(), "pending": compaction.pending(engine)}
