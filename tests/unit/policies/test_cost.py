from policies.cost import expected_cost_picos, worst_charge_picos
from tests.policy_builders import a_candidate, an_ask


def test_ranking_counts_estimated_input_and_wanted_output_of_every_choice() -> None:
    ask = an_ask(input_estimate=250, output_wanted=100, choices=2)

    assert expected_cost_picos(a_candidate(), ask) == 250 * 1_000_000 + 200 * 4_000_000


def test_an_unknown_cost_counts_as_the_charge() -> None:
    ask = an_ask(input_estimate=250, output_wanted=100)
    unknown = a_candidate(cost_input_picos=None, cost_output_picos=None)

    assert expected_cost_picos(unknown, ask) == 250 * 2_000_000 + 100 * 8_000_000


def test_a_candidate_without_any_price_ranks_as_free() -> None:
    free = a_candidate(
        cost_input_picos=None,
        cost_output_picos=None,
        charge_input_picos=None,
        charge_output_picos=None,
    )

    assert expected_cost_picos(free, an_ask()) == 0


def test_the_worst_charge_counts_the_input_bound() -> None:
    ask = an_ask(input_bound=1_000, output_wanted=100, choices=3)

    assert worst_charge_picos(a_candidate(), ask) == 1_000 * 2_000_000 + 300 * 8_000_000


def test_without_a_price_there_is_no_worst_charge() -> None:
    assert worst_charge_picos(a_candidate(charge_input_picos=None), an_ask()) is None
    assert worst_charge_picos(a_candidate(charge_output_picos=None), an_ask()) is None


def test_what_makes_no_output_needs_no_output_price() -> None:
    ask = an_ask(operation="embeddings", output_wanted=0, input_bound=10)

    assert worst_charge_picos(a_candidate(charge_output_picos=None), ask) == 20_000_000
