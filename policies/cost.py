"""What one request could cost on one candidate, in picos. Cost ranks; charge meets the ceilings."""

from policies.ask import Ask
from policies.candidates import Candidate


def expected_cost_picos(candidate: Candidate, ask: Ask) -> int:
    """What the backend is expected to cost us, for ranking only: estimated input, wanted output.

    A cost price that is not known counts as the charge price (cost x markup 1), and as nothing
    when there is none either.
    """
    per_input, per_output = candidate.cost_input_picos, candidate.cost_output_picos
    if per_input is None:
        per_input = candidate.charge_input_picos or 0
    if per_output is None:
        per_output = candidate.charge_output_picos or 0
    return per_input * ask.input_estimate + per_output * ask.output_wanted * ask.choices


def worst_charge_picos(candidate: Candidate, ask: Ask) -> int | None:
    """The most this request can be charged: input bound and all wanted output. None: unpriced."""
    return charge_for_picos(candidate, ask, ask.output_wanted)


def charge_for_picos(candidate: Candidate, ask: Ask, output: int) -> int | None:
    """The same with so many output tokens a choice."""
    per_input, per_output = candidate.charge_input_picos, candidate.charge_output_picos
    if per_input is None:
        return None
    if per_output is None:
        return per_input * ask.input_bound if ask.output_wanted == 0 else None
    return per_input * ask.input_bound + per_output * output * ask.choices
