"""What whoever reads an invoice has to know that no line of it says: it is not the whole month."""

from billing.money import format_picos
from billing.periods import rfc3339
from billing.terms import Terms, minimum_picos


def of_draft(terms: Terms, period: str, currency: str, end_us: int, now_us: int) -> tuple[str, ...]:
    """`currency` is the ledger's; `terms` are without a minimum where a commitment stands in its
    place. Nothing once the month, which ends at `end_us`, is over: then all
    there is of it is in the draft.
    """
    if now_us >= end_us:
        return ()
    said = f"made while {period} runs: usage until {rfc3339(end_us)} may still be added"
    minimum = minimum_picos(terms, period, currency)
    if not minimum:
        return (said,)
    agreed = (
        f"the agreed minimum of {format_picos(minimum)} {currency} for {period} is not in it yet: "
        "what the usage of the whole month falls short of that is added once the month is over"
    )
    return said, agreed


def of_early(period: str) -> tuple[str, ...]:
    """Of what was issued before its month was over: always the same, as all that is issued."""
    more = "what more is used in it, or was agreed on for it,"
    return (f"issued before {period} was over: {more} comes on a next invoice",)
