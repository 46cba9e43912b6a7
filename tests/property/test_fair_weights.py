"""Teams that wait at the same time are served tokens in proportion to their weights."""

from itertools import permutations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.fair_queue import MOST_WEIGHT, UNITS, FairQueue, Line, charged
from policies.slot_leases import QUANTUM
from tests.fair_world import SECOND_US, Load, World, pour

CAPACITY = 4
LARGEST = 250  # tokens of a request, as it turned out

_weights = st.sampled_from([1, 2, 3, 10, 999, MOST_WEIGHT]) | st.integers(1, MOST_WEIGHT)
_sizes = st.integers(1, 50_000) | st.sampled_from([1, 100_000])


@settings(deadline=None)
@given(
    teams=st.lists(st.tuples(_weights, st.lists(_sizes, min_size=1, max_size=8)), min_size=2,
                   max_size=5),
    turns=st.integers(0, 400),
)  # fmt: skip
def test_at_any_moment_of_a_backlog_served_tokens_are_in_proportion_to_weights(
    teams: list[tuple[int, list[int]]], turns: int
) -> None:
    """A team is served only when its counter is the lowest, so it is ahead of any other by one
    charge at most; and what it was served for its weight is its counter and what rounding took off.
    """
    queue: FairQueue[tuple[Line, int, int]] = FairQueue()
    lines = [(9, f"team_{n}") for n in range(len(teams))]
    upcoming = dict.fromkeys(lines, 0)
    served = dict.fromkeys(lines, 0)
    requests = dict.fromkeys(lines, 0)

    def comes(line: Line) -> None:
        weight, sizes = teams[lines.index(line)]
        tokens = sizes[upcoming[line] % len(sizes)]
        queue.put(line, (line, upcoming[line], tokens), charged(tokens, weight))
        upcoming[line] += 1

    for line in (*lines, *lines):
        comes(line)
    for _ in range(turns):
        line, _, tokens = queue.pop()
        served[line] += tokens
        requests[line] += 1
        comes(line)

    for one, other in permutations(range(len(teams)), 2):
        (mine, sizes), (theirs, _) = teams[one], teams[other]
        ahead = served[lines[one]] * UNITS * theirs - served[lines[other]] * UNITS * mine
        bound = charged(max(sizes), mine) + requests[lines[one]]
        assert ahead <= bound * mine * theirs


@settings(deadline=None, max_examples=10)
@given(
    workers=st.integers(1, 4),
    weights=st.tuples(_weights, st.integers(1, 9)),
    apart=st.booleans(),
    seed=st.integers(0, 2**32),
)
@example(workers=2, weights=(10, 1), apart=True, seed=1)  # ten times QUANTUM is over half of it all
def test_on_any_number_of_workers_two_that_flood_get_tokens_by_their_weights(
    workers: int, weights: tuple[int, int], apart: bool, seed: int
) -> None:
    """A worker lets a team be QUANTUM tokens ahead, and beyond that by what it does not know of: as
    many requests as fit at the backend that others have begun, and as many whose end is still to be
    told. Tokens are those of the one that is ahead, also where each is on a worker of its own.
    """
    world = World(CAPACITY, workers, seed)
    loads = [
        Load(f"t{n}", 40, 100, 50, 250, weight=each, at=n % workers if apart else None)
        for n, each in enumerate(weights)
    ]
    poured = [pour(world, load, 10, most=10**9, fifo=False) for load in loads]
    world.run(10 * SECOND_US)

    tokens = [sum(one.cost for one in each if one.started_us > 0) for each in poured]
    unknown = 2 * CAPACITY * LARGEST
    for mine, theirs in ((0, 1), (1, 0)):
        ahead = tokens[mine] * weights[theirs] - tokens[theirs] * weights[mine]
        assert ahead <= (QUANTUM + unknown) * weights[theirs]
    assert sum(tokens) > 16 * 9 * 200
