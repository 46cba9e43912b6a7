"""An invoice's life over HTTP: drafted, issued, checked, credited, voided; refusals in words."""

import csv
import hashlib
import io
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import Engine

from billing.meters import Meters
from billing.periods import window
from gateway import clock
from gateway.clock import parse_rfc3339
from gateway.stores.sql import usage
from tests.admin_server import AdminServer, Made, admin_server, refused
from tests.focus_rules import faults
from tests.ledger_events import a_card, an_event


class Books:
    """A tenant with usage, and its finance people at the platform."""

    def __init__(self, server: AdminServer, client: httpx.Client) -> None:
        self.engine: Engine = server.engine
        self.admin = client
        self.made = Made(client)
        self.tenant = self.made.tenant(name="Acme", currency="USD")
        self.team = self.made.team(self.tenant["id"], name="=Search", cost_center="CC-1")
        self.key = self.made.key(self.team["id"], name="indexer")

    def book(self, request: str, at: str = "2026-10-14T12:00:00Z", **changes: Any) -> None:
        whose = {"tenant_id": self.tenant["id"], "key_id": self.key["id"]}
        whose |= {"team_path": (self.team["id"],), "admitted_at_us": parse_rfc3339(at)}
        usage.record(self.engine, [(an_event(request, **(whose | changes)), True)])

    def draft(self, period: str = "2026-10") -> dict[str, Any]:
        return self.made.make("invoices", tenant_id=self.tenant["id"], period=period)

    def table(self, invoice: dict[str, Any]) -> list[dict[str, str]]:
        lines = self.admin.get(f"/invoices/{invoice['id']}/lines.csv")
        return list(csv.DictReader(io.StringIO(lines.text)))

    def issue(self, draft: dict[str, Any], **body: Any) -> httpx.Response:
        return self.admin.post(f"/invoices/{draft['id']}/issue", json=body)


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


@pytest.fixture
def books(server: AdminServer) -> Iterator[Books]:
    with server.client() as client:
        yield Books(server, client)


def test_a_month_is_drafted_issued_exported_and_proves_itself(books: Books) -> None:
    books.book("req_1", usage=Meters(input=10_000_000, output=7))
    issued = books.issue(books.draft()).json()
    one = f"/invoices/{issued['id']}"
    lines = books.admin.get(f"{one}/lines.csv")
    manifest = books.admin.get(f"{one}/manifest").json()

    assert (issued["status"], issued["number"]) == ("issued", "INV-000001")
    assert issued["total"] == "30.00"
    table = list(csv.DictReader(io.StringIO(lines.text)))
    assert sum(Decimal(row["amount"]) for row in table) == Decimal("30.00")
    assert {row["invoice_number"] for row in table} == {"INV-000001"}
    assert table[0]["team"] == "'=Search", "no formula for a spreadsheet"
    assert table[-1]["amount"].startswith("-"), "and numbers stay numbers"
    assert manifest["sha256"] == hashlib.sha256(lines.content).hexdigest()
    assert manifest["sha256"] == manifest["issued_sha256"] == issued["content_sha256"]
    assert (manifest["rows"], manifest["amount"]) == (3, "30")
    assert (manifest["quantity"], manifest["intact"]) == (10_000_007, True)
    assert lines.headers["content-disposition"].endswith('"invoice-INV-000001-2026-10.csv"')


def test_what_sqlite_has_no_room_for_is_refused_by_name(books: Books) -> None:
    """Ten million dong are four hundred dollars."""
    dear: dict[str, Any] = {
        "usage": Meters(input=6_000_000_000),
        "charge_card": a_card(1_000_000_000, 1, "dear"),
        "cost_card": None,
    }
    asked = {"tenant_id": books.tenant["id"], "period": "2026-10"}
    books.book("req_1", **dear)
    other = books.made.key(books.team["id"], name="other")
    books.book("req_2", **dear | {"key_id": other["id"]})

    posted = books.issue(books.draft())
    books.book("req_3", **dear)
    line = books.admin.post("/invoices", json=asked)

    for answer, named in ((posted, "what is posted on "), (line, "by key indexer of team =Search")):
        assert (answer.status_code, answer.json()["code"]) == (422, "amount_too_large")
        assert named in answer.json()["detail"]
        assert "comes to 12000000, and SQLite holds 9223372.036854775807" in answer.text
        assert "PostgreSQL" in answer.text


def test_what_is_issued_stays_what_it_was_called(books: Books) -> None:
    books.book("req_1")
    issued = books.issue(books.draft()).json()
    before = books.admin.get(f"/invoices/{issued['id']}/lines.csv").content
    renamed = {"name": "Globex", "currency": "USD", "timezone": "UTC"}
    books.admin.put(f"/tenants/{books.tenant['id']}", json=renamed)
    team = {"tenant_id": books.tenant["id"], "name": "Found", "cost_center": "CC-9"}
    books.admin.put(f"/teams/{books.team['id']}", json=team)

    assert books.admin.get(f"/invoices/{issued['id']}/lines.csv").content == before
    assert books.admin.get(f"/invoices/{issued['id']}/manifest").json()["intact"] is True


def test_a_running_month_is_issued_early_or_not_at_all(books: Books) -> None:
    this_month = window("month", ZoneInfo("Europe/Berlin"), clock.now_us()).id.removeprefix("m")
    draft = books.draft(this_month)

    answer = books.issue(draft)

    assert (answer.status_code, answer.json()["code"]) == (409, "period_running")
    assert '{"early": true}' in answer.json()["detail"]
    assert books.issue(draft, early=True).json()["early"] is True
    assert books.draft(this_month)["id"] != draft["id"], (
        "what comes later has an invoice of its own"
    )


def test_a_draft_is_issued_only_as_it_was_read(books: Books) -> None:
    books.book("req_1")
    draft = books.draft()
    books.book("req_2")

    path = f"/invoices/{draft['id']}/issue"
    stale = books.admin.post(path, json={}, headers={"if-match": '"1"'})
    assert stale.status_code == 412
    read_again = books.draft()
    etag = books.admin.get(f"/invoices/{draft['id']}").headers["etag"]
    done = books.admin.post(path, json={}, headers={"if-match": etag})
    assert (done.status_code, done.json()["total"]) == (200, read_again["total"])


def test_credit_notes_are_refused_above_what_is_left(books: Books) -> None:
    books.book("req_1", usage=Meters(input=10_000_000))
    issued = books.issue(books.draft()).json()
    path = f"/invoices/{issued['id']}/credit-notes"
    line, *_ = books.table(issued)

    def credit(amount: str, **more: Any) -> httpx.Response:
        return books.admin.post(path, json={"amount": amount, "reason": "slow"} | more)

    first = credit("20", line_id=line["line_id"])
    assert (first.status_code, first.json()["total"]) == (201, "-20.00")
    assert first.json()["number"] == "INV-CN-000001"
    assert first.json()["credits_invoice"] == issued["id"]
    refused(credit("10.01"), 422, "amount")
    refused(credit("10.005"), 422, "amount")
    refused(credit("0"), 422, "amount")
    refused(credit("1", line_id="line_none"), 422, "line_id")
    assert credit("10").status_code == 201
    voided = books.admin.post(f"/invoices/{issued['id']}/void", json={"reason": "x"})
    assert (voided.status_code, voided.json()["code"]) == (409, "has_credit_notes")
    (row,) = books.table(first.json())
    assert (row["line_kind"], row["amount"], row["corrects_invoice"]) == (
        "credit",
        "-20",
        "INV-000001",
    )
    listed = books.admin.get("/invoices", params={"credits_invoice": issued["id"]}).json()["items"]
    assert [each["total"] for each in listed] == ["-20.00", "-10.00"]


def test_only_a_draft_is_issued_and_only_what_is_issued_is_credited(books: Books) -> None:
    draft = books.draft()
    note = {"amount": "1", "reason": "slow"}
    answer = books.admin.post(f"/invoices/{draft['id']}/credit-notes", json=note)
    assert answer.json()["code"] == "not_issued"
    issued = books.issue(draft).json()
    assert books.issue(issued).json()["code"] == "not_a_draft"
    body = {"tenant_id": books.tenant["id"], "period": "2026-10"}
    again = books.admin.post("/invoices", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "period_closed")
    voided = books.admin.post(f"/invoices/{issued['id']}/void", json={"reason": "typo"}).json()
    assert (voided["status"], voided["void_reason"]) == ("voided", "typo")
    assert books.draft()["status"] == "draft"


def test_terms_are_kept_with_what_is_issued_and_refused_in_words(books: Books) -> None:
    path = f"/tenants/{books.tenant['id']}/billing"
    default = books.admin.get(path)
    assert default.json()["issuer"]["name"] == "Meterhouse"
    given = default.json() | {
        "recipient": {"name": "Acme Corporation", "address": ["1 Main St"], "tax_id": "DE1"},
        "series": "ACME-EU",
        "purchase_order": "PO-7",
        "tax": {"VAT": "reverse charge"},
    }
    put = books.admin.put(path, json=given, headers={"if-match": default.headers["etag"]})
    assert put.json() == given
    assert books.issue(books.draft()).json()["number"] == "ACME-EU-000001"
    refused(books.admin.put(path, json={"series": "inv"}), 400, "series")
    refused(books.admin.put(path, json={"series": "INV-CN"}), 422, "series")
    refused(books.admin.put(path, json={"minimum": "1.001"}), 422, "minimum")
    refused(books.admin.put(path, json={"minimum": "1", "minimum_from": "2026-02-30"}), 422)
    assert books.admin.put(path, json={}, headers={"if-match": '"0"'}).status_code == 412


def test_where_four_eyes_are_agreed_two_people_issue_and_credit(
    books: Books, server: AdminServer
) -> None:
    books.book("req_1", usage=Meters(input=10_000_000))
    books.admin.put(f"/tenants/{books.tenant['id']}/billing", json={"four_eyes": True})
    draft = books.draft()
    refused(books.issue(draft), 409)
    token = books.made.make("admin-tokens", name="grace", role="finance")
    with server.client(token["secret"]) as grace:
        issued = grace.post(f"/invoices/{draft['id']}/issue").json()
        path = f"/invoices/{issued['id']}/credit-notes"
        small, large = (
            books.admin.post(path, json={"amount": amount, "reason": "slow"}).json()
            for amount in ("1", "29.50")
        )
        own = books.admin.post(f"/invoices/{small['id']}/issue")
        note = grace.post(f"/invoices/{small['id']}/issue").json()
        over = grace.post(f"/invoices/{large['id']}/issue")

    assert (issued["status"], small["status"], small["number"]) == ("issued", "draft", None)
    assert (own.status_code, own.json()["code"]) == (409, "four_eyes")
    assert (note["number"], note["total"]) == ("INV-CN-000001", "-1.00")
    assert (over.status_code, over.json()["code"]) == (409, "over_credited")
    assert books.admin.delete(f"/invoices/{large['id']}").status_code == 204


def test_a_tenant_that_nothing_was_billed_to_goes_with_its_terms(books: Books) -> None:
    tenant = books.made.tenant()
    assert books.admin.put(f"/tenants/{tenant['id']}/billing", json={"grace_days": 2}).is_success
    assert books.admin.delete(f"/tenants/{tenant['id']}").status_code == 204


def test_what_is_exported_as_focus_breaks_no_rule_and_adds_up(books: Books) -> None:
    books.book("req_1", usage=Meters(input=333, cache_read=7, output=10_000_001))
    issued = books.issue(books.draft()).json()
    books.book("req_late")
    november = books.draft("2026-11")

    for invoice, number in ((issued, issued["number"]), (november, "")):
        answer = books.admin.get(f"/invoices/{invoice['id']}/focus.csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert faults(answer.content, {number: Decimal(invoice["total"])}) == []
    corrections = csv.DictReader(io.StringIO(answer.text))
    assert {row["ChargeClass"] for row in corrections if row["ChargeCategory"] == "Usage"} == {
        "Correction"
    }
    path = f"/invoices/{issued['id']}/focus.csv"
    newer = books.admin.get(path, params={"version": "1.4"})
    assert "focus-1.4-experimental.csv" in newer.headers["content-disposition"]
    detail = books.admin.get(f"/invoices/{issued['id']}/focus-detail.csv")
    owed = [row["BilledCost"] for row in csv.DictReader(io.StringIO(detail.text))]
    assert sum(map(Decimal, owed)) == Decimal(issued["total"])
    assert books.admin.get(path, params={"version": "1.3"}).status_code == 400


def test_a_line_leads_to_its_requests_and_a_request_to_its_invoice(books: Books) -> None:
    for n in range(3):
        books.book(f"req_{n}")
    issued = books.issue(books.draft()).json()
    path = f"/invoices/{issued['id']}/requests"
    line = books.table(issued)[0]

    page = books.admin.get(path, params={"line_id": line["line_id"], "limit": 2}).json()
    rest = books.admin.get(path, params={"line_id": line["line_id"], "cursor": page["next"]}).json()

    assert [each["request_id"] for each in page["items"] + rest["items"]] == [
        "req_0", "req_1", "req_2",
    ]  # fmt: skip
    assert (page["requests"], page["adds_up"], rest["next"]) == (3, True, None)
    assert (page["meter"], page["quantity"]) == ("input", 1_200)
    assert (page["amount"], page["unit_price_per_million"]) == ("0.0036", "3")
    refused(books.admin.get(path, params={"line_id": "line_none"}), 422, "line_id")
    asked = {"request_id": "req_1", "from": "2026-10-01T00:00:00Z"}
    (request,) = books.admin.get("/usage/requests", params=asked).json()["items"]
    (attempt,) = request["attempts"]
    assert attempt["invoice"] == issued["number"]
    assert sum(Decimal(each["amount"]) for each in attempt["rating"]) == Decimal(request["charge"])
    assert attempt["rating"][0] == {
        "meter": "input",
        "quantity": 400,
        "unit_price_per_million": "3",
        "price_version": "price_charge_in",
        "amount": "0.0012",
        "service_tier": "standard",
        "list_price_per_million": None,
        "by_quantity": None,
        "steps": [],
    }


def test_the_page_of_an_invoice_is_sealed_off_and_complete(books: Books) -> None:
    books.book("req_1", usage=Meters(input=10_000_000))
    issued = books.issue(books.draft()).json()
    note = {"amount": "1", "reason": "<b>slow</b>"}
    books.admin.post(f"/invoices/{issued['id']}/credit-notes", json=note)

    answer = books.admin.get(f"/invoices/{issued['id']}/page.html")

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    named = 'inline; filename="invoice-INV-000001-2026-10.html"'
    assert answer.headers["content-disposition"] == named
    for said in ("INV-000001", "30.00 USD", "=Search", "&lt;b&gt;slow", "29.00"):
        assert said in answer.text, said
    assert issued["content_sha256"] in answer.text


def test_lines_are_listed_page_by_page_as_they_are_in_the_file(books: Books) -> None:
    books.book("req_1")
    books.book("req_2", model="other")
    issued = books.issue(books.draft()).json()
    path = f"/invoices/{issued['id']}/lines"

    first = books.admin.get(path, params={"limit": 4}).json()
    rest = books.admin.get(path, params={"cursor": first["next"]}).json()

    listed, table = first["items"] + rest["items"], books.table(issued)
    assert rest["next"] is None
    assert [(each["line_id"], each["amount"]) for each in listed] == [
        (row["line_id"], row["amount"]) for row in table
    ]
    assert sum(Decimal(each["printed"]) for each in listed) == Decimal(issued["total"])
    others = books.admin.get(path, params={"model": "other"}).json()["items"]
    assert {each["model"] for each in others} == {"other"}
    assert len(others) == 3


def test_a_filter_that_says_null_is_refused_and_filters_nothing_in_silence(books: Books) -> None:
    refused(books.admin.get("/invoices", params={"status": "null"}), 400, "status")
    assert books.admin.get("/invoices", params={"number": "null"}).json()["items"] == []
