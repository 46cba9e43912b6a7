"""The command line. Each command is a module of `gateway.commands`, imported when asked for."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from gateway.commands.output import go_quiet
from gateway.settings import SettingsError, StartError

COMMANDS: Final = (
    "up",
    "serve",
    "jobs",
    "migrate",
    "apply",
    "export",
    "key",
    "person",
    "policy",
    "invoice",
    "bill",
    "commitment",
    "reprice",
    "report",
    "prices",
    "rates",
    "tco",
    "evidence",
    "doctor",
    "rollups",
    "version",
)


def main(argv: Sequence[str] | None = None) -> int:
    """0 done; 1 refused or failed, with a reason; 2 wrong usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    asked = next((word for word in words if not word.startswith("-")), None)
    wanted = (asked,) if asked in COMMANDS else COMMANDS  # all of them only to list them
    parser = argparse.ArgumentParser(
        prog="meterhouse", description="A multi-tenant inference gateway with token metering."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {name: importlib.import_module(f"gateway.commands.{name}") for name in wanted}
    for module in modules.values():
        module.add(subparsers)
    args = parser.parse_args(words)
    try:
        status = int(modules[args.command].run(args))
        sys.stdout.flush()
    except BrokenPipeError:
        go_quiet()
        return 1
    except SettingsError as error:
        print(f"meterhouse: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"meterhouse: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
