"""The lines of an invoice as FOCUS 1.4's Invoice Detail: experimental, its text was read as a late
draft. `InvoiceDetailId` joins it with the Cost and Usage rows of the same version.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from billing.csv_files import safe_text
from billing.exchange import Amounts
from billing.focus import Bill, billed_text, category, description
from billing.invoices import InvoiceLine
from billing.periods import rfc3339

COLUMNS: Final = (
    "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "InvoiceDetailCreated", "InvoiceDetailDescription", "InvoiceDetailGrain",
    "InvoiceDetailId", "InvoiceDetailLastUpdated", "InvoiceId", "InvoiceIssueDate",
    "InvoiceIssueStatus", "InvoiceIssuerName", "PaymentCurrency", "PaymentCurrencyBilledCost",
    "PaymentCurrencyInvoiceDetailId", "PaymentDueDate", "PaymentTerms", "PurchaseOrderNumber",
    "ReferenceInvoiceId",
)  # fmt: skip
_GRAIN: Final = (
    '["BillingPeriodStart","ChargeCategory","ChargeClass","RegionId","SkuPriceId","SubAccountId",'
    '"Tags","x_PriceVersion","x_Provenance"]'
)
_STATUSES: Final = {"draft": "Open", "issued": "Issued", "voided": "Voided"}
_DAY_US: Final = 86_400_000_000


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """What all rows of one invoice have in common beyond its bill. Times in microseconds UTC."""

    bill: Bill
    status: str  # draft | issued | voided
    created_at_us: int
    issued_at_us: int | None = None
    voided_at_us: int | None = None
    payment_days: int | None = None
    purchase_order: str = ""


def rows(lines: Iterable[InvoiceLine], detail: Detail) -> Iterator[tuple[str, ...]]:
    """The header, then a row a line; BilledCost adds up to the invoice's total. Payment is in the
    invoice's own currency. A row that adjusts an earlier invoice refers to that one.
    """
    yield COLUMNS
    shared, amounts = _shared(detail), Amounts(detail.bill.exchange)
    for line in (each for each in lines if each.line_kind != "drawdown"):
        amount = billed_text(line, amounts)
        row = shared | {
            "BilledCost": amount,
            "ChargeCategory": category(line),
            "InvoiceDetailDescription": safe_text(description(line, detail.bill)),
            "InvoiceDetailId": line.line_id,
            "PaymentCurrencyBilledCost": amount,
            "PaymentCurrencyInvoiceDetailId": line.line_id,
        }
        if line.corrects_invoice is not None:
            row["ReferenceInvoiceId"] = safe_text(line.corrects_invoice)
        yield tuple(row.get(column, "") for column in COLUMNS)


def _shared(detail: Detail) -> dict[str, str]:
    bill, issued_us = detail.bill, detail.issued_at_us
    updated_us = detail.voided_at_us or issued_us or detail.created_at_us
    due_us = None
    if issued_us is not None and detail.payment_days is not None:
        due_us = issued_us + detail.payment_days * _DAY_US
    return {
        "BillingAccountId": bill.tenant_id,
        "BillingCurrency": bill.currency,
        "BillingPeriodEnd": rfc3339(bill.period_end_us),
        "BillingPeriodStart": rfc3339(bill.period_start_us),
        "InvoiceDetailCreated": _second(detail.created_at_us),
        "InvoiceDetailGrain": _GRAIN,
        "InvoiceDetailLastUpdated": _second(updated_us),
        "InvoiceId": safe_text(bill.number or ""),
        "InvoiceIssueDate": _second(issued_us),
        "InvoiceIssueStatus": _STATUSES[detail.status],
        "InvoiceIssuerName": safe_text(bill.issuer),
        "PaymentCurrency": bill.currency,
        "PaymentDueDate": _second(due_us),
        "PaymentTerms": "" if detail.payment_days is None else f"Net {detail.payment_days}",
        "PurchaseOrderNumber": safe_text(detail.purchase_order),
        "ReferenceInvoiceId": safe_text(bill.number or ""),
    }


def _second(at_us: int | None) -> str:
    """FOCUS knows no fractions."""
    return "" if at_us is None else rfc3339(at_us - at_us % 1_000_000)
