"""A draft brought into another currency: lines stay exact, the total is rounded once in it."""

from collections.abc import Mapping

from msgspec.structs import replace

from billing.exchange import EXACT_DECIMALS, Amounts, Exchange, minor_step
from billing.invoices import Draft, by_largest_remainder, rounding_line
from billing.money import format_decimal, format_picos, half_up
from billing.periods import Window


def in_currency(
    made: Draft,
    currency: str,
    exchange: Exchange,
    *,
    invoice_id: str,
    period: Window,
    rates: Mapping[str, str],
) -> tuple[Draft, Exchange]:
    """The draft with its total and its printed amounts in `currency`, and the exchange completed.
    `rates` are of the invoices that lines may correct. Lines keep their picos of the ledger; what
    is rounded is with the exchange.
    """
    lines = [line for line in made.lines if line.line_kind != "rounding"]
    corrected = {line.corrects_invoice for line in lines}
    exchange = replace(
        exchange,
        amount=format_picos(sum(line.amount_picos for line in lines)),
        earlier={of: rate for of, rate in sorted(rates.items()) if of in corrected},
    )
    amounts, step = Amounts(exchange), minor_step(currency)
    exact = [
        amounts.exact(line.line_kind, line.amount_picos, line.corrects_invoice) for line in lines
    ]
    total_minor = half_up(sum(exact), step)
    rounding = total_minor * step - sum(exact)
    printed = by_largest_remainder(exact, step)
    lines = [replace(line, amount_minor=n) for line, n in zip(lines, printed, strict=True)]
    if rounding:
        lines.append(rounding_line(invoice_id, period, 0))
    exchange = replace(exchange, rounding=format_decimal(rounding, EXACT_DECIMALS))
    return Draft(tuple(lines), total_minor, 0), exchange
