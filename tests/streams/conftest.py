"""One gateway for all tests of this folder that do not need days of it for themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streams.rig import Rig, rig


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a process holds is read from /proc."""
    if Path("/proc/self/fd").exists():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="this system has no /proc"))


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("streams") / "home") as r:
        yield r


@pytest.fixture
def shared(_shared: Rig) -> Rig:
    """Running, at rest, its backend's book empty."""
    _shared.until_nothing_is_left(_shared.resting, within_s=60)
    _shared.new_book()
    return _shared
