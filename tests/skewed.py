"""`meterhouse` on a machine whose clock is wrong: `python -m tests.skewed SECONDS WORDS...`."""

import sys
import time

SKEW_NS = int(float(sys.argv.pop(1)) * 1e9)
_true_ns = time.time_ns


def _skewed_ns() -> int:
    return _true_ns() + SKEW_NS


time.time_ns = _skewed_ns

if __name__ == "__main__":
    from gateway.__main__ import main

    sys.exit(main())
