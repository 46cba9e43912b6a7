import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.hedging import HedgeShare


def test_nothing_is_covered_before_anything_was_asked() -> None:
    assert not HedgeShare().covers(0)


def test_one_hedge_is_earned_by_as_many_requests_as_its_share_says() -> None:
    share = HedgeShare()
    for _ in range(19):
        share.request(5, 7)
        assert not share.covers(7)
    share.request(5, 7)
    assert share.covers(7)
    share.take(7)
    assert not share.covers(7)


def test_a_dear_hedge_is_earned_later_than_a_cheap_one() -> None:
    share = HedgeShare()
    for _ in range(2):
        share.request(50, 10)
    assert share.covers(10)
    assert not share.covers(11)


def test_a_hedge_beyond_the_share_is_never_taken() -> None:
    with pytest.raises(ValueError, match="beyond its share"):
        HedgeShare().take(0)


def test_a_quiet_hour_saves_ten_hedges() -> None:
    share = HedgeShare()
    for _ in range(1_000):
        share.request(100, 1)
    taken = 0
    while share.covers(1):
        share.take(1)
        taken += 1
    assert taken == 10


@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.integers(0, 50), st.booleans()), min_size=1, max_size=60
    )
)
def test_hedges_and_their_cost_never_exceed_the_share(
    steps: list[tuple[int, int, bool]],
) -> None:
    share, earned, spent, percents, hedges = HedgeShare(), 0, 0, 0, 0
    for percent, cost, wants in steps:
        share.request(percent, cost)
        earned, percents = earned + percent * cost, percents + percent
        if wants and share.covers(cost):
            share.take(cost)
            spent, hedges = spent + 100 * cost, hedges + 1
        assert spent <= earned
        assert 100 * hedges <= percents
