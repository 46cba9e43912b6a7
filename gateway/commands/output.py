"""Standard output that may be cut off: `meterhouse apply | head` is no failure of the work."""

import os
import sys


def put(text: str) -> None:
    """A line at once. Once nobody reads any more, nothing more is written and work goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        go_quiet()


def go_quiet() -> None:
    """From here on standard output goes nowhere, what is left in its buffer included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
