"""No step of a request costs twice what it did, and this test would see it."""

from collections.abc import Callable, Iterator

import pytest

from tests.bench import stages


@pytest.fixture
def steps(store_url: str) -> Iterator[dict[str, stages.Step]]:
    with stages.steps(store_url) as found:
        yield found


def test_every_step_of_a_request_keeps_to_its_budget(
    steps: dict[str, stages.Step], figure: Callable[[str], None]
) -> None:
    """A step that is too dear is measured again before it is blamed: noise only ever adds."""
    measured = stages.measure(steps)
    again = stages.measure({name: steps[name] for name in stages.too_dear(measured)})
    measured |= {name: min(measured[name], units) for name, units in again.items()}

    figure(stages.text(measured))
    assert set(measured) == set(stages.BUDGETS)
    assert stages.too_dear(measured) == {}


def test_a_step_that_is_done_twice_is_seen_to_be(steps: dict[str, stages.Step]) -> None:
    """`ROOM` is more than noise and less than a doubling, whatever a budget has left."""
    blind = [name for name, step in steps.items() if not any(_seen(step) for _ in range(3))]

    assert blind == []


def _seen(step: stages.Step) -> bool:
    def done_twice() -> object:
        step()
        return step()

    once, twice = stages.measure({"once": step, "twice": done_twice}).values()
    return once * stages.ROOM < twice
