"""`python -m tests.bench.held`: thousands of streams open on one worker, everything on; then every
client vanishes at once.

They are held for longer than a hold of money lives that nobody extends. Afterwards no connection,
slot or hold is left and the ledger has a row for each, or this ends with an error that says what.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.goals import Goal, told
from tests.streams.rig import rig
from tests.streams.test_held import HOLD_LIFE_S, MANY, MOST_MIB, hold_and_vanish

_GONE_WITHIN_S: Final = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.held", description=__doc__)
    parser.add_argument("--streams", type=int, default=MANY)
    parser.add_argument("--at-once", type=int, default=500, help="so many open at a time")
    parser.add_argument("--seconds", type=float, default=HOLD_LIFE_S, help="they are held")
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < 2 * arguments.streams + 1_000:
        parser.error(f"the hard limit of open files is {most}: too low for so many streams")
    with tempfile.TemporaryDirectory(prefix="mh-held-") as folder, rig(Path(folder) / "home") as r:
        mib, took = hold_and_vanish(r, arguments.streams, arguments.seconds, arguments.at_once)
    streams = f"{arguments.streams:,} streams"
    mb = mib * 1.048576
    return told(
        [
            Goal(
                f"a worker with {streams}", f"{mb:.0f} MB", f"<= {MOST_MIB:.0f} MB", mb <= MOST_MIB
            ),
            Goal(
                f"until nothing is left of {streams}",
                f"{took:.1f} s",
                f"<= {_GONE_WITHIN_S:.0f} s",
                took <= _GONE_WITHIN_S,
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
