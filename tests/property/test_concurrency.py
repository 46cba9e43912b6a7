"""The laws of the adaptive limit, over any history of a backend."""

from hypothesis import given
from hypothesis import strategies as st

from policies import concurrency
from policies.concurrency import FREE, LEAST, TURN_US

STEP = st.one_of(
    st.tuples(st.just("began"), st.integers(0, 200)),
    st.tuples(st.just("answered"), st.integers(0, 10_000_000)),
    st.tuples(st.just("refused"), st.integers(1, 200)),
    st.tuples(st.just("turned"), st.integers(0, 3)),
)


@given(st.lists(STEP))
def test_the_limit_never_closes_a_backend_and_no_trouble_makes_none(
    steps: list[tuple[str, int]],
) -> None:
    room, now_us, troubled, slowest = FREE, 0, False, 0
    for kind, value in steps:
        before = room
        match kind:
            case "began":
                room = concurrency.began(room, value)
            case "answered":
                room = concurrency.answered(room, value)
                slowest = max(slowest, value)
            case "refused":
                room, troubled = concurrency.refused(room, value), True
            case _:
                now_us += value * TURN_US
                room = concurrency.turned(room, 0, now_us)
                if before.limit is not None and room.limit is not None:
                    assert room.limit <= before.limit + 1, "one a turn"
        assert room.limit is None or room.limit >= LEAST
        assert room.limit is None or troubled or slowest > 0
