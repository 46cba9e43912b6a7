"""A request may be cancelled at any await: its hold ends, and what a backend did is told once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import servers
from tests.crash.sweep import KINDS, sweep_house
from tests.running import run


@pytest.mark.parametrize("again", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_request_cancelled_at_any_await_leaves_nothing_behind(
    tmp_path: Path, store_url: str, figure: Callable[[str], None], again: int
) -> None:
    async def scenario() -> None:
        with servers.nobody() as nobody:
            closed = f"{nobody}/v1"
            async with sweep_house(tmp_path, store_url, closed) as sweep:
                swept = {name: await sweep.through(name, again) for name in KINDS}
                assert min(swept.values()) >= 3, swept
                await sweep.sums()
        figure(f"awaits cancelled one by one ({again} more after it): {swept}")

    run(scenario())
