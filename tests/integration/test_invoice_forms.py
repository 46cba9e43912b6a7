"""Every form that an invoice is downloaded in: the manifest has its rows, sum and digest, and they
all say the same.
"""

import csv
import hashlib
import io
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing.meters import Meters
from gateway.admin import invoice_document
from gateway.stores.sql.engine import reading
from gateway.stores.sql.invoices import Invoice
from tests.admin_server import AdminServer, admin_server
from tests.integration.test_a_million_events import with_lines
from tests.integration.test_admin_invoices import Books
from tests.ledger_events import a_ledger

WHERE = {
    "invoice-INV-000001-2026-10.csv": "lines.csv",
    "invoice-INV-000001-2026-10-focus-1.2.csv": "focus.csv?version=1.2",
    "invoice-INV-000001-2026-10-focus-1.4-experimental.csv": "focus.csv?version=1.4",
    "invoice-INV-000001-2026-10-focus-1.4-invoice-detail-experimental.csv": "focus-detail.csv",
    "invoice-INV-000001-2026-10.json": "invoice.json",
}


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


@pytest.fixture
def books(server: AdminServer) -> Iterator[Books]:
    with server.client() as client:
        yield Books(server, client)


def issued(books: Books) -> dict[str, Any]:
    """A month that rounds, with a minimum, in another currency than its prices."""
    rate = {"base": "USD", "quote": "EUR", "rate": "0.9137", "day": "2026-10-31", "source": "ECB"}
    books.made.make("exchange-rates", **rate)
    terms = {
        "currency": "EUR", "minimum": "20.00", "payment_days": 14, "purchase_order": "PO-7",
        "recipient": {"name": "Acme Corporation", "address": ["1 Main St"], "tax_id": "DE1"},
        "tax": {"VAT": "reverse charge"},
    }  # fmt: skip
    path = f"/tenants/{books.tenant['id']}/billing"
    assert books.admin.put(path, json=terms).is_success
    books.book("req_1", usage=Meters(input=333, cache_read=7, output=1_000_001))
    return dict(books.issue(books.draft()).json())


def download(books: Books, invoice: dict[str, Any], where: str) -> httpx.Response:
    answer = books.admin.get(f"/invoices/{invoice['id']}/{where}")
    assert answer.status_code == 200, answer.text
    return answer


def test_the_manifest_has_rows_sum_and_digest_of_each_form(books: Books) -> None:
    invoice = issued(books)

    manifest = download(books, invoice, "manifest?files=all").json()

    assert [each["name"] for each in manifest["files"]] == list(WHERE)
    for each in manifest["files"]:
        answer = download(books, invoice, WHERE[each["name"]])
        assert each["sha256"] == hashlib.sha256(answer.content).hexdigest(), each["name"]
        assert f'filename="{each["name"]}"' in answer.headers["content-disposition"]
        assert Decimal(each["amount"]) == Decimal(invoice["total"]), each["name"]
        if each["name"].endswith(".csv"):
            rows = list(csv.reader(io.StringIO(answer.text, newline="")))
            assert each["rows"] == len(rows) - 1
    assert manifest["intact"] is True
    (alone,) = download(books, invoice, "manifest").json()["files"]
    assert alone == manifest["files"][0]


def test_one_document_has_the_head_the_parties_and_every_line(books: Books) -> None:
    invoice = issued(books)
    note = {"amount": "0.50", "reason": "slow", "line_id": "3"}
    credited = books.admin.post(f"/invoices/{invoice['id']}/credit-notes", json=note).json()

    told = download(books, invoice, "invoice.json").json()

    assert told["format"] == "meterhouse-invoice-1"
    assert told["invoice"] == download(books, invoice, "").json()
    assert told["recipient"]["name"] == "Acme Corporation"
    assert (told["purchase_order"], told["tax"]) == ("PO-7", {"VAT": "reverse charge"})
    assert told["payable_by"] > told["invoice"]["issued_at"][:10]
    assert [(each["number"], each["total"]) for each in told["credit_notes"]] == [
        (credited["number"], "-0.50")
    ]
    assert told["lines"] == download(books, invoice, "lines").json()["items"]
    kinds = [line["line_kind"] for line in told["lines"]]
    assert (kinds[-2:], kinds.count("rounding")) == (["minimum", "rounding"], 1)
    total = Decimal(invoice["total"])
    assert sum(Decimal(line["amount"]) for line in told["lines"]) == total
    assert sum(Decimal(line["printed"]) for line in told["lines"]) == total
    assert [line["number"] for line in told["lines"]] == list(range(1, len(kinds) + 1))


def test_an_empty_invoice_is_a_document_too(books: Books) -> None:
    draft = books.draft()

    told = download(books, draft, "invoice.json").json()

    assert (told["lines"], told["payable_by"], told["tax"]) == ([], None, None)


def test_a_long_document_takes_no_more_memory_than_a_short_one(sqlite_url: str) -> None:
    with a_ledger(sqlite_url) as engine:
        drafts = [
            with_lines(engine, month, n) for month, n in (("2026-09", 1_500), ("2026-08", 6_000))
        ]

        def peak(invoice: Invoice) -> int:
            with reading(engine) as connection:
                tracemalloc.start()
                try:
                    size = sum(map(len, invoice_document.parts(connection, invoice)))
                    assert size > 500_000
                    return tracemalloc.get_traced_memory()[1]
                finally:
                    tracemalloc.stop()

        peaks = [peak(each) for each in drafts]

    assert peaks[1] < peaks[0] + 500_000, peaks
