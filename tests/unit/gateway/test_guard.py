import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from gateway import guard

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]

# Starts the words after PARENT as a command, with its own pid where they say {parent}, tells the
# pid once the sleeper is up, and waits to be killed.
PARENT = textwrap.dedent("""
    import os, subprocess, sys, time
    words = [word.replace("{parent}", str(os.getpid())) for word in sys.argv[1:]]
    child = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(60)
""")

WATCH = (
    "import sys; sys.path.insert(0, sys.argv[1]); import guard; "
    "sys.exit(guard.watch(int(sys.argv[2]), sys.argv[3:]))"
)


def ends_when_its_parent_is_killed(*words: str) -> bool:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *words], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        readable, _, _ = select.select([child], [], [], 10)  # a pidfd turns readable with the end
        return bool(readable)
    finally:
        os.close(child)


def test_a_guarded_command_ends_with_its_parent() -> None:
    assert ends_when_its_parent_is_killed("-IS", guard.__file__, "{parent}", *SLEEPER)


def test_watching_ends_it_too_where_the_kernel_cannot_be_asked() -> None:
    directory = str(Path(guard.__file__).parent)

    assert ends_when_its_parent_is_killed("-c", WATCH, directory, "{parent}", *SLEEPER)


def watched(code: str) -> int:
    words = ["-c", WATCH, str(Path(guard.__file__).parent), str(os.getpid()), sys.executable]
    return subprocess.run([sys.executable, *words, "-c", code], check=False).returncode


def test_watching_passes_the_end_of_the_command_on() -> None:
    assert watched("raise SystemExit(7)") == 7
    assert watched("import os; os.kill(os.getpid(), 9)") == 128 + signal.SIGKILL


def test_a_command_whose_parent_is_already_gone_never_starts() -> None:
    words = [sys.executable, "-IS", guard.__file__, "1", *SLEEPER]

    ended = subprocess.run(words, capture_output=True, check=False)

    assert (ended.returncode, ended.stdout) == (1, b"")
