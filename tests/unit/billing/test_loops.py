"""A loop is one key, one shape, and money every minute."""

from hypothesis import given
from hypothesis import strategies as st

from billing.loops import MINUTE_US, Call, Loop, loops, shape_of

SECOND_US = 1_000_000


def calls(
    count: int, every_us: int, amount: int = 10, key: str = "k", shape: str = "s"
) -> list[Call]:
    return [Call(key, shape, number * every_us, amount) for number in range(count)]


def test_many_alike_calls_within_a_minute_are_a_loop() -> None:
    (found,) = loops(calls(30, SECOND_US), 10, 300)

    assert found == Loop("k", "s", 30, 300, 0, 29 * SECOND_US)


def test_a_minute_is_sixty_seconds_wherever_it_begins() -> None:
    slow = calls(100, 4 * SECOND_US)

    (found,) = loops(slow, 10, 150)

    assert (found.requests, found.amount, found.end_us) == (15, 150, 99 * 4 * SECOND_US)
    assert loops(slow, 10, 151) == ()
    assert loops(slow, 16, 1) == ()


def test_calls_of_other_keys_and_shapes_do_not_add_up() -> None:
    mixed = [
        *calls(9, SECOND_US, key="one"),
        *calls(9, SECOND_US, key="two"),
        *calls(9, SECOND_US, key="one", shape="other"),
    ]

    assert loops(mixed, 10, 1) == ()
    assert [each.key_id for each in loops(mixed, 9, 90)] == ["one", "one", "two"]


def test_a_prompt_that_grows_a_little_keeps_its_shape_and_one_twice_as_long_has_another() -> None:
    shape = shape_of("chat", "chat", True, 20_000)

    assert shape == shape_of("chat", "chat", True, 20_400)
    others = [
        shape_of("chat", "chat", True, 40_000),
        shape_of("chat", "chat", False, 20_000),
        shape_of("chat", "embeddings", True, 20_000),
        shape_of("other", "chat", True, 20_000),
        shape_of("chat", "chat", True, 0),
    ]
    assert len({shape, *others}) == 6


@given(
    st.lists(
        st.builds(
            Call,
            st.sampled_from(["a", "b"]),
            st.sampled_from(["s", "t"]),
            st.integers(0, 3 * MINUTE_US),
            st.integers(0, 100),
        ),
        max_size=40,
    ),
    st.integers(1, 5),
    st.integers(0, 300),
    st.randoms(use_true_random=False),
)
def test_the_dearest_minute_is_found_whatever_the_order(
    given_calls: list[Call], requests: int, amount: int, draw: object
) -> None:
    """Against every minute that ends with a call, added up by itself."""
    shuffled = list(given_calls)
    draw.shuffle(shuffled)  # type: ignore[attr-defined]

    found = loops(given_calls, requests, amount)

    assert loops(shuffled, requests, amount) == found
    best: dict[tuple[str, str], int] = {}
    for last in given_calls:
        alike = [
            each.amount
            for each in given_calls
            if (each.key_id, each.shape) == (last.key_id, last.shape)
            and last.at_us - MINUTE_US < each.at_us <= last.at_us
        ]
        if len(alike) >= requests:
            of = last.key_id, last.shape
            best[of] = max(best.get(of, 0), sum(alike))
    assert {(each.key_id, each.shape): each.amount for each in found} == {
        of: sum_ for of, sum_ in best.items() if sum_ >= amount
    }
