"""Credit notes: what is taken back of an invoice, never more than there is to take."""

from billing.invoices import InvoiceLine, line_id
from billing.money import format_minor, minor_picos
from billing.periods import Window


class OverCreditedError(ValueError):
    """More than what is left of the invoice, or of the line. The message says what is left."""


def check(minor: int, *, left_of_invoice: int, left_of_line: int | None, currency: str) -> None:
    """OverCreditedError unless both the invoice and the line, if one is named, still have as much.
    Everything in minor units.
    """
    if minor <= 0:
        raise OverCreditedError("a credit note takes back more than nothing")
    left = left_of_invoice if left_of_line is None else min(left_of_invoice, left_of_line)
    if minor > left:
        what = "invoice" if left == left_of_invoice else "line"
        amount = f"{format_minor(max(0, left), currency)} {currency}"
        raise OverCreditedError(f"only {amount} of the {what} is left to credit")


def line_of(
    minor: int,
    *,
    currency: str,
    note_id: str,
    number: str,
    credited: InvoiceLine | None,
    period: Window,
) -> InvoiceLine:
    """The one line of a note of `minor` units on the invoice `number`, in that invoice's words
    where it is on one of its lines.
    """
    return InvoiceLine(
        line_id=line_id(note_id, ("credit",)),
        cost_center="" if credited is None else credited.cost_center,
        team="" if credited is None else credited.team,
        key="" if credited is None else credited.key,
        model="" if credited is None else credited.model,
        amount_picos=minor_picos(-minor, currency),
        amount_minor=-minor,
        period_start_us=period.start_us if credited is None else credited.period_start_us,
        period_end_us=period.end_us if credited is None else credited.period_end_us,
        line_kind="credit",
        corrects_invoice=number,
        credits_line=None if credited is None else credited.line_id,
    )
