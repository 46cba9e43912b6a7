import pytest

from tests.policy_builders import an_ask


def test_an_ask_cannot_change_after_it_was_sized() -> None:
    with pytest.raises(AttributeError):
        an_ask().input_bound = 1
