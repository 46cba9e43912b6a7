"""Runs a command that must not outlive the process that started it.

Used as `python -IS guard.py PARENT_PID COMMAND...`: the standard library only, so that it starts in
milliseconds. Linux: the kernel is asked to send SIGTERM when the parent is gone, and the command
takes this process's place. Elsewhere this process stays, passes signals on and watches its parent.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_SECONDS = 0.5
_GRACE_SECONDS = 10.0


def main(parent: int, command: list[str]) -> int:
    """Never returns on Linux, where the command takes over; else the command's exit status."""
    if sys.platform != "linux":
        return watch(parent, command)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:
        os.execv(command[0], command)  # noqa: S606 - an argument vector, no shell wanted
    return 1  # it died before the kernel was asked


def watch(parent: int, command: list[str]) -> int:
    """The same promise by looking every half second, for kernels that cannot be asked."""
    child = subprocess.Popen(command, close_fds=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while os.getppid() == parent:
        try:
            return _status(child.wait(_LOOK_EVERY_SECONDS))
        except subprocess.TimeoutExpired:
            continue
    child.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_SECONDS / 5)
    child.kill()
    return _status(child.wait())


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
