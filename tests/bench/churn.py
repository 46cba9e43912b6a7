"""`python -m tests.bench.churn`: clients that leave at any moment, three requests of ten, for ten
minutes.

Afterwards the same clients are served as before, no connection, slot, call or hold is left, every
request that reached the backend is in the ledger once, with the backend's figures, and the budgets
say what the ledger says; or this ends with an error that says what is not so.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bench.goals import Goal, told
from tests.streams.rig import rig
from tests.streams.test_churn import MOST_GROWTH_MIB, churned, grown_mib, weighed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.churn", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="mh-churn-") as folder,
        rig(Path(folder) / "home") as r,
        weighed(r) as weights,
    ):
        requests = churned(r, seconds=arguments.seconds, rest_s=0.1)
    grown = grown_mib(weights)
    return told(
        [
            Goal(f"lost of {requests:,} requests", "nothing", "nothing", met=True),
            Goal(
                "grown meanwhile",
                f"{grown:.1f} MiB",
                f"<= {MOST_GROWTH_MIB:.0f} MiB",
                grown <= MOST_GROWTH_MIB,
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
