import pytest

from policies.candidates import Live
from tests.policy_builders import a_candidate


def test_a_candidate_is_configuration_and_does_not_change() -> None:
    with pytest.raises(AttributeError):
        a_candidate().weight = 2


def test_a_candidate_nobody_has_tried_is_available_and_unknown() -> None:
    live = Live()

    assert live.available
    assert (live.ttft_p95_us, live.tpot_p95_us, live.samples) == (None, None, 0)
