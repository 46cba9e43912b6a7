"""Which start of the machine this is: what was not synced is gone after the next one."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

_LINUX: Final = Path("/proc/sys/kernel/random/boot_id")
_MACOS: Final = ("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid")


@cache
def boot_id() -> str:
    """Differs from the last one if the machine was started again; empty where nobody can tell."""
    try:
        if sys.platform == "darwin":
            told = subprocess.run(_MACOS, check=True, capture_output=True, timeout=5)
            return told.stdout.decode("ascii").strip()
        return _LINUX.read_text("ascii").strip()
    except (OSError, subprocess.SubprocessError):
        return ""
