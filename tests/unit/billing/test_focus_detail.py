"""Invoice Detail joins the Cost and Usage rows line by line, and says what is owed and when."""

import csv
import io
from decimal import Decimal

from billing import focus_detail
from billing.csv_files import csv_text
from billing.focus_detail import COLUMNS, Detail
from billing.money import format_minor
from tests.unit.billing.test_focus import BILL, OCTOBER, an_invoice, exported, read

DETAIL = Detail(
    bill=BILL,
    status="issued",
    created_at_us=OCTOBER.end_us,
    issued_at_us=OCTOBER.end_us + 3_600_123_456,
    payment_days=14,
    purchase_order="=PO-7",
)


def rows_of(detail: Detail) -> list[dict[str, str]]:
    written = "".join(csv_text(focus_detail.rows(an_invoice().lines, detail)))
    return list(csv.DictReader(io.StringIO(written, newline="")))


def test_every_line_joins_its_cost_and_usage_row() -> None:
    detail, usage = rows_of(DETAIL), read(exported(an_invoice().lines, version="1.4"))

    joined = [(row["InvoiceDetailId"], row["BilledCost"], row["InvoiceId"]) for row in detail]
    assert joined == [
        (row["InvoiceDetailId"], row["BilledCost"], row["InvoiceId"]) for row in usage
    ]
    assert sum(Decimal(row["BilledCost"]) for row in detail) == Decimal(
        format_minor(an_invoice().total_minor, "USD")
    )


def test_it_says_what_is_owed_when_and_on_what() -> None:
    row = rows_of(DETAIL)[0]

    assert len(COLUMNS) == len(row) == 22
    assert row["InvoiceIssueStatus"] == "Issued"
    assert row["InvoiceIssueDate"] == "2026-11-01T00:00:00Z"
    assert row["PaymentDueDate"] == "2026-11-15T00:00:00Z"
    assert (row["PaymentTerms"], row["PurchaseOrderNumber"]) == ("Net 14", "'=PO-7")
    assert row["PaymentCurrency"] == row["BillingCurrency"] == "USD"


def test_a_correction_refers_to_the_invoice_it_adjusts_and_all_else_to_its_own() -> None:
    references = {row["ReferenceInvoiceId"] for row in rows_of(DETAIL)}

    assert references == {"INV-000001", "INV-000000"}


def test_a_draft_is_open_and_has_no_dates_of_issue() -> None:
    (row, *_) = rows_of(Detail(bill=BILL, status="draft", created_at_us=OCTOBER.end_us))

    assert row["InvoiceIssueStatus"] == "Open"
    assert (row["InvoiceIssueDate"], row["PaymentDueDate"], row["PaymentTerms"]) == ("", "", "")
