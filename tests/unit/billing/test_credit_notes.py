"""A credit note takes back what there is, and says what it takes it from."""

import pytest

from billing.credit_notes import OverCreditedError, check, line_of
from billing.invoices import draft
from billing.meters import Meters
from billing.periods import Window
from tests.unit.billing.samples import aggregate

OCTOBER = Window("m2026-10", 1, 2)


@pytest.mark.parametrize(
    ("minor", "invoice", "line", "words"),
    [
        (0, 5, None, "more than nothing"),
        (-1, 5, None, "more than nothing"),
        (6, 5, None, "0.05 USD of the invoice"),
        (4, 5, 3, "0.03 USD of the line"),
        (4, 3, 5, "0.03 USD of the invoice"),
        (1, -2, None, "0.00 USD of the invoice"),
    ],
)
def test_more_than_what_is_left_is_refused(
    minor: int, invoice: int, line: int | None, words: str
) -> None:
    with pytest.raises(OverCreditedError, match=words):
        check(minor, left_of_invoice=invoice, left_of_line=line, currency="USD")


def test_all_that_is_left_may_be_credited() -> None:
    check(5, left_of_invoice=5, left_of_line=None, currency="USD")
    check(3, left_of_invoice=5, left_of_line=3, currency="USD")


def test_a_note_on_a_line_speaks_of_its_payer_and_period() -> None:
    made = draft(
        [aggregate(meters=Meters(input=1_000_000))],
        invoice_id="inv_1",
        currency="USD",
        period=OCTOBER,
    )

    line = line_of(
        7, currency="USD", note_id="inv_2", number="INV-1", credited=made.lines[0], period=OCTOBER
    )

    assert (line.amount_minor, line.amount_picos) == (-7, -70_000_000_000)
    assert (line.line_kind, line.corrects_invoice) == ("credit", "INV-1")
    assert (line.team, line.key, line.cost_center) == ("search", "indexer", "CC-100")
    assert line.credits_line == made.lines[0].line_id
    assert (line.quantity, line.meter) == (0, "")


def test_a_note_on_the_whole_names_no_payer() -> None:
    line = line_of(
        7, currency="USD", note_id="inv_2", number="INV-1", credited=None, period=OCTOBER
    )

    assert (line.team, line.credits_line) == ("", None)
    assert (line.period_start_us, line.period_end_us) == (1, 2)
