"""Figures beyond which the scripts would not be exact are refused before they reach one."""

from typing import Any

import pytest

from policies.holds import MAX_CHOICES, MAX_COUNTER, MAX_TOKENS, Admission, Settlement

ASK: dict[str, Any] = {
    "hold_id": "req_1",
    "ttl_ms": 30_000,
    "input_money": 1_000,
    "output_money": 10,
    "input_tokens": 100,
    "wanted": 100,
    "least": 10,
    "choices": 1,
    "gates": (),
    "slots": (),
    "accounts": (),
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"least": 101},
        {"wanted": MAX_TOKENS + 1},
        {"choices": 0},
        {"choices": MAX_CHOICES + 1},
        {"output_money": -1},
        {"input_money": MAX_COUNTER},
        {"input_tokens": -1},
    ],
)
def test_an_admission_with_figures_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    Admission(**ASK)
    with pytest.raises(ValueError, match="req_1"):
        Admission(**ASK | wrong)


@pytest.mark.parametrize("wrong", [(-1, 0), (0, -1), (MAX_COUNTER + 1, 0)])
def test_a_settlement_with_figures_out_of_range_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="req_1"):
        Settlement("req_1", *wrong)
