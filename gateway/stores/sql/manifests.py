"""What an invoice's lines.csv holds, counted from its lines as they are kept now."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
from sqlalchemy import Connection

from billing.csv_files import csv_text
from billing.exchange import EXACT_DECIMALS, Amounts, minor_step
from billing.invoices import InvoiceLine, csv_rows
from billing.money import format_decimal
from gateway.stores.sql import invoices
from gateway.stores.sql.invoices import Invoice


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`intact`: the bytes are those that were issued and add up to the total; None of a draft."""

    rows: int
    rows_by_kind: dict[str, int]
    amount: str  # exact, in the invoice's currency
    quantity: int
    sha256: str
    intact: bool | None


def of(connection: Connection, invoice: Invoice) -> Manifest:
    """Memory does not grow with the lines."""
    counted = _Counted(Amounts(invoice.exchanged))
    rows = csv_rows(
        counted.passing(invoices.lines_of(connection, invoice.id)),
        invoice_number=invoice.number,
        tenant=invoices.terms_of(connection, invoice).tenant,
        currency=invoice.currency,
        exchange=invoice.exchanged,
    )
    hashed = hashlib.sha256()
    for record in csv_text(rows):
        hashed.update(record.encode())
    sha256 = hashed.hexdigest()
    adds_up = counted.exact == invoice.total_minor * minor_step(invoice.currency)
    issued = invoice.content_sha256
    return Manifest(
        rows=counted.kinds.total(),
        rows_by_kind=dict(counted.kinds),
        amount=format_decimal(counted.exact, EXACT_DECIMALS),
        quantity=counted.quantity,
        sha256=sha256,
        intact=None if issued is None else adds_up and issued == sha256,
    )


class _Counted:
    """Counts lines while they pass."""

    def __init__(self, amounts: Amounts) -> None:
        self._amounts = amounts
        self.kinds: Counter[str] = Counter()
        self.exact = 0  # 10^-24
        self.quantity = 0

    def passing(self, lines: Iterable[InvoiceLine]) -> Iterator[InvoiceLine]:
        for line in lines:
            self.kinds[line.line_kind] += 1
            self.exact += self._amounts.exact(
                line.line_kind, line.amount_picos, line.corrects_invoice
            )
            self.quantity += line.quantity
            yield line
