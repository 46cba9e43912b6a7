"""Candidates as they look to a prompt of a size, and what a dead worker's hold is billed from."""

from billing.meters import Meters
from billing.prices import Band
from gateway.dataplane.bands import Sizes, dearest
from policies.candidates import Candidate
from policies.compile import EffectivePolicy
from policies.panel import Panel
from tests.unit.billing.samples import card

SMALL, MIDDLE, LARGE = (
    Band(0, card(input="3", output="15")),
    Band(100, card(input="6", output="10")),
    Band(200, card(input="1", output="30")),
)
PLACE = ("be_1", "up")
CHEAP, DEAR = Band(0, card(input="1", output="5")), Band(150, card(input="2", output="9"))
CANDIDATE = Candidate(
    *PLACE, "eu", frozenset(), "cloud", frozenset(), None, 1,
    cost_input_picos=1_000_000, cost_output_picos=5_000_000,
    charge_input_picos=3_000_000, charge_output_picos=15_000_000, max_concurrency=None,
)  # fmt: skip
PANEL = Panel(EffectivePolicy(), [CANDIDATE])


def seen(bound: int, estimate: int) -> tuple[int | None, ...]:
    """Millionths of the prices that the only candidate has."""
    sizes = Sizes({PLACE: [(SMALL, MIDDLE, LARGE)]}, {PLACE: (CHEAP, DEAR)})
    (it,) = sizes.panel(PANEL, bound, estimate).candidates
    found = (
        it.charge_input_picos, it.charge_output_picos, it.cost_input_picos, it.cost_output_picos,
    )  # fmt: skip
    return tuple(each and each // 10**6 for each in found)


def test_what_may_be_charged_is_the_dearest_that_the_bound_reaches() -> None:
    assert seen(100, 0) == (3, 15, 1, 5)
    assert seen(101, 0) == (6, 15, 1, 5)
    assert seen(201, 0) == (6, 30, 1, 5)


def test_what_it_is_expected_to_cost_is_the_card_of_the_estimate() -> None:
    assert seen(900, 150)[2:] == (1, 5)
    assert seen(900, 151)[2:] == (2, 9)


def test_a_panel_is_made_once_for_all_prompts_of_a_band() -> None:
    sizes = Sizes({PLACE: [(SMALL, MIDDLE)]}, {})

    assert sizes.panel(PANEL, 100, 100) is PANEL
    assert sizes.panel(PANEL, 101, 50) is sizes.panel(PANEL, 5_000, 900)


def test_a_hold_without_an_end_is_billed_on_the_card_on_which_its_worst_costs_most() -> None:
    bands = (SMALL, MIDDLE, LARGE)

    assert dearest(bands, Meters(input=100, output=5)) is SMALL.card
    assert dearest(bands, Meters(input=101)) is MIDDLE.card
    assert dearest(bands, Meters(input=500, output=1)) is MIDDLE.card
    assert dearest(bands, Meters(input=201, output=5_000)) is LARGE.card
