"""The laws of ejection, over any history of what was seen."""

from hypothesis import given
from hypothesis import strategies as st

from policies.outliers import (
    ALL,
    MAX_OUT_US,
    RAMP_US,
    Seen,
    Standing,
    share,
    sweep,
)

SECOND = 1_000_000
SEEN = st.builds(
    lambda outcomes, failing, median: Seen(outcomes, outcomes * failing // 100, median),
    st.integers(0, 200),
    st.integers(0, 100),
    st.one_of(st.none(), st.integers(1, 10_000_000)),
)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(SEEN, min_size=n, max_size=n))))
def test_at_most_half_are_out_and_none_for_longer_than_ten_seconds(turns: list[list[Seen]]) -> None:
    standings: dict[int, Standing] = {}
    for turn, row in enumerate(turns):
        now_us = turn * SECOND
        standings = sweep(standings, dict(enumerate(row)), now_us)

        out = [each for each in standings.values() if share(each, now_us) == 0]
        assert len(out) <= len(row) // 2
        assert all(each.out_until_us is None or each.out_until_us <= now_us + MAX_OUT_US
                   for each in standings.values())  # fmt: skip
        assert all(share(each, now_us + MAX_OUT_US + RAMP_US) == ALL for each in standings.values())


@given(st.integers(2, 6), st.integers(0, 100), st.integers(1, 10_000_000))
def test_what_befalls_all_alike_ejects_none(peers: int, failing: int, median_us: int) -> None:
    row = dict.fromkeys(range(peers), Seen(100, failing, median_us))
    known = dict.fromkeys(range(peers), Standing(usual_us=1))

    after = sweep(known, row, 0)
    assert all(share(each, 0) == ALL for each in after.values())


@given(st.lists(SEEN, min_size=1, max_size=5), st.integers(1, 1_000_000))
def test_one_that_never_fails_and_is_as_quick_as_ever_is_never_ejected(
    others: list[Seen], usual_us: int
) -> None:
    well = Seen(100, 0, usual_us)
    standings = {-1: Standing(usual_us=usual_us)}

    after = sweep(standings, dict(enumerate(others)) | {-1: well}, 0)

    assert share(after[-1], 0) == ALL
