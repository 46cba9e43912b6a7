import resource
import subprocess
import sys

import pytest

from gateway.descriptors import MOST_WANTED

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _run(soft: int, hard: int) -> list[int]:
    """(the limit after raising it, clients that can be served at once) under these limits."""
    code = (
        "import resource;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        "from gateway import descriptors;"
        "print(descriptors.raise_limit(), descriptors.most_exchanges())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return [int(word) for word in answer.stdout.split()]


@pytest.mark.skipif(HARD == resource.RLIM_INFINITY, reason="what is allowed is not known here")
def test_the_limit_is_raised_as_far_as_the_system_allows() -> None:
    limit, _ = _run(100, HARD)

    assert limit == min(HARD, MOST_WANTED)


def test_every_client_has_room_for_its_backend_and_the_process_for_itself() -> None:
    limit, exchanges = _run(100, 1_000)

    assert limit == 1_000
    assert 2 * exchanges <= limit - 200
    assert exchanges >= 300


def test_the_smallest_limit_still_serves_somebody() -> None:
    assert _run(100, 100) == [100, 1]
