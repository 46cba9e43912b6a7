from policies.candidates import Live
from policies.objectives import Objective, together, unusual

USUAL = Objective("ttft", 800)
OWN = Objective("ttft", 100, percentile=99)


def test_each_figure_is_read_from_its_place() -> None:
    live = Live(ttft_p95_us=1, tpot_p95_us=2, total_p95_us=3, others={OWN.view: 4})

    assert [Objective(name, 0).measured(live) for name in ("ttft", "tpot", "total")] == [1, 2, 3]
    assert OWN.measured(live) == 4
    assert OWN.measured(Live(ttft_p95_us=1)) is None


def test_of_two_that_differ_in_the_limit_the_tighter_stays() -> None:
    tighter = Objective("ttft", 700)

    assert together((USUAL,), (tighter,)) == together((tighter,), (USUAL,)) == (tighter,)
    assert together((USUAL,), (OWN,)) == (USUAL, OWN)


def test_only_views_of_ones_own_have_to_be_asked_for() -> None:
    assert unusual((USUAL, OWN)) == (OWN,)
