"""What is said beside an invoice that is not the whole month."""

from billing.remarks import of_draft, of_early
from billing.terms import Terms

NOVEMBER_US = 1_793_491_200_000_000  # 2026-11-01T00:00:00Z
PLAIN, AGREED = Terms(), Terms(minimum="100", minimum_from="2026-10-17")


def test_a_draft_of_a_running_month_says_so_and_that_its_minimum_is_not_in_it() -> None:
    running, minimum = of_draft(AGREED, "2026-10", "USD", NOVEMBER_US, NOVEMBER_US - 1)

    assert running == (
        "made while 2026-10 runs: usage until 2026-11-01T00:00:00Z may still be added"
    )
    assert minimum.startswith("the agreed minimum of 48.39 USD for 2026-10 is not in it yet")
    assert of_draft(PLAIN, "2026-10", "USD", NOVEMBER_US, NOVEMBER_US - 1) == (running,)


def test_a_month_that_is_over_needs_no_word() -> None:
    assert of_draft(AGREED, "2026-10", "USD", NOVEMBER_US, NOVEMBER_US) == ()


def test_what_is_issued_early_says_what_comes_on_the_next() -> None:
    (said,) = of_early("2026-10")

    assert said.startswith("issued before 2026-10 was over: what more is used in it, or was agreed")
    assert said.endswith("comes on a next invoice")
