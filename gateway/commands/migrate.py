"""`meterhouse migrate`: bring the database to this release's schema. Safe to run again."""

import argparse
import os
import sys
from typing import Any

from gateway.settings import Settings


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("migrate", help="bring the database to this release's schema")
    parser.add_argument("--quiet", action="store_true", help="say nothing when all is well")


def run(args: argparse.Namespace) -> int:
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.secrets import make_private
    from gateway.stores.sql import engine as sql

    settings = Settings.from_env(os.environ)
    make_private(settings.home)
    engine = sql.open_engine(settings.database_url)
    try:
        sql.migrate(engine)
    except sql.NewerSchemaError as error:
        print(f"meterhouse: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        reason = str(error).partition("\n")[0]
        print(f"meterhouse: the database does not do what it should: {reason}", file=sys.stderr)
        return 1
    finally:
        engine.dispose()
    if not args.quiet:
        print("the database has this release's schema")
    return 0
