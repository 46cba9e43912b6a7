"""The page of an invoice: complete in itself, adding up as printed, and none of its markup is
somebody else's.
"""

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser

from msgspec.structs import replace

from billing import credit_notes
from billing.exchange import Exchange
from billing.invoice_page import MOST_LINES, Head, Note, page
from billing.invoices import InvoiceLine, Minimum, csv_rows, draft
from billing.meters import Meters
from billing.periods import Window
from billing.terms import IssuedTerms, Party
from tests.unit.billing.samples import aggregate

OCTOBER = Window("m2026-10", 1_790_805_600_000_000, 1_793_487_600_000_000)
EVIL = "<img src=//x onerror=alert(1)>&"
TERMS = IssuedTerms(
    tenant="acme",
    timezone="Europe/Berlin",
    issuer=Party(name="Example Gateway", address=("1 Main St", "Berlin")),
    recipient=Party(name=f"Acme {EVIL}", tax_id="DE123"),
    purchase_order="PO-7",
    payment_days=14,
)
HEAD = Head(
    kind="invoice",
    status="issued",
    number="INV-000001",
    terms=TERMS,
    currency="USD",
    period_start_us=OCTOBER.start_us,
    period_end_us=OCTOBER.end_us,
    total_minor=0,
    issued_at_us=1_793_660_400_000_000,
    sha256="ab" * 32,
)


class Cells(HTMLParser):
    """The rows of the page as text, and every tag and attribute on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self._inside = False
        self._at = -1
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            width = int(dict(attrs).get("colspan") or 1)
            self.rows[-1] += [""] * width
            self._at = -width
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][self._at] += data


def thirds() -> tuple[InvoiceLine, ...]:
    payers = [
        aggregate(cost_center=f"CC-{n}", meters=Meters(input=111_667), team=EVIL) for n in range(3)
    ]
    return draft(payers, invoice_id="inv_1", currency="USD", period=OCTOBER).lines


def written(head: Head, lines: tuple[InvoiceLine, ...]) -> str:
    return "".join(page(head, lambda: lines, "body{}"))


def replaced(**changes: object) -> Head:
    return Head(**{**{name: getattr(HEAD, name) for name in HEAD.__struct_fields__}, **changes})


def amounts(cells: Cells, width: int) -> Iterator[float]:
    for row in cells.rows:
        if len(row) == width and re.fullmatch(r"-?[\d,]+\.\d\d", row[-1]):
            yield float(row[-1].replace(",", ""))


def test_printed_amounts_add_up_in_both_tables() -> None:
    cells = Cells(written(replaced(total_minor=101), thirds()))

    assert sum(amounts(cells, 10)) == 1.01
    assert sum(amounts(cells, 3)) == 1.01
    assert [max(row[1:]) for row in cells.rows if row[0] == "Total"] == ["1.01 USD"] * 2


def test_nothing_on_it_is_somebody_elses_markup_or_loaded_from_elsewhere() -> None:
    text = written(replaced(total_minor=101), thirds())
    cells = Cells(text)

    assert not cells.tags & {"img", "script", "link", "iframe", "a", "object", "form"}
    assert not {name for name in cells.attributes if name.startswith("on") or name == "src"}
    assert "http-equiv" in cells.attributes
    assert "default-src 'none'" in text
    assert EVIL in unescape(text)


def test_it_says_who_bills_whom_for_what_and_until_when() -> None:
    text = unescape(written(HEAD, ()))

    for said in (
        "Invoice INV-000001", "Example Gateway", "1 Main St", "Tax id DE123", "PO-7",
        "1 October 2026 to 31 October 2026 (Europe/Berlin)", "3 November 2026",
        "17 November 2026 (14 days)", "ab" * 32, "No tax is computed",
    ):  # fmt: skip
        assert said in text, said


def test_a_draft_and_what_is_voided_say_so() -> None:
    assert "not an invoice yet" in written(replaced(status="draft", number=None), ())
    voided = written(replaced(status="voided", reason="wrong address"), ())
    assert "nothing is owed" in voided
    assert "wrong address" in voided
    assert "notice" not in written(HEAD, ())


def test_a_tax_block_is_printed_as_it_was_given() -> None:
    tax = {"VAT": "reverse charge <b>"}
    terms = IssuedTerms(tenant="acme", timezone="UTC", tax=tax)

    assert "reverse charge &lt;b&gt;" in written(replaced(terms=terms), ())


def test_what_came_late_has_a_part_of_its_own() -> None:
    september = Window("m2026-09", 1_788_213_600_000_000, OCTOBER.start_us)
    late = aggregate(period=september, corrects_invoice="INV-000000")
    made = draft([aggregate(), late], invoice_id="inv_1", currency="USD", period=OCTOBER)

    rows = Cells(written(HEAD, made.lines)).rows
    parts = [row[0] for row in rows if len(row) == 10 and not any(row[1:])]

    said = "Usage of September 2026 that came, or was charged anew, after invoice INV-000000"
    assert parts == [said]


def test_the_rate_that_a_correction_comes_at_is_said_where_it_is_another() -> None:
    rate = Exchange(
        currency="USD", rate="0.95", day="2026-10-31", source="ECB", amount="6.34313735717",
        earlier={"INV-000001": "0.92", "INV-000002": "0.95"},
    )  # fmt: skip

    text = written(replaced(currency="EUR", exchange=rate), ())

    assert "at 1 USD = 0.95 EUR (ECB, 31 October 2026); what corrects INV-000001 at" in text
    assert "INV-000002" not in text


def test_lines_have_the_numbers_that_they_have_in_the_file_and_every_row_all_columns() -> None:
    minimum = Minimum(picos=10**12, period=OCTOBER)
    made = draft(
        [aggregate(), aggregate(provenance="estimated")], invoice_id="inv_1", currency="USD",
        period=OCTOBER, minimums=[minimum],
    )  # fmt: skip
    csv = list(csv_rows(made.lines, invoice_number=None, tenant="", currency="USD"))[1:]

    rows = Cells(written(HEAD, made.lines)).rows
    numbered = {row[0]: row for row in rows if row[0].isdigit()}

    assert {len(row) for row in rows} == {3, 10}
    tokens = [f"{int(row[9]):,}" if row[8] else "" for row in csv if row[18] != "rounding"]
    assert [numbered[str(n)][7] for n in range(1, len(numbered) + 1)] == tokens
    assert "Agreed minimum" in numbered[str(len(tokens))][1]


def test_every_printed_sheet_says_what_it_is_and_nothing_ends_the_style() -> None:
    running = '</style><b>"}'
    text = written(replaced(number=running, status="voided"), ())

    style = text.partition("<style>")[2].partition("</style>")[0]
    assert 'content:"Page " counter(page) " of " counter(pages)' in style
    assert "Invoice \\3c \\2f style\\3e \\3c b\\3e \\22 \\7d \\2c  voided" in style
    assert text.count("</style>") == 1


def test_a_credit_note_names_its_invoice_and_the_invoice_what_is_left() -> None:
    line = credit_notes.line_of(
        50, currency="USD", note_id="inv_2", number="INV-000001", credited=None, period=OCTOBER
    )
    note = replaced(kind="credit_note", total_minor=-50, credits="INV-000001", reason="slow")
    text = written(note, (line,))
    assert "Credit note" in text
    assert "Credit on invoice INV-000001" in text
    assert "Payable by" not in text
    assert sum(amounts(Cells(text), 10)) == -0.5

    credited = replaced(total_minor=101, notes=(Note("INV-CN-000001", -50, "slow"),))
    assert "0.51" in written(credited, thirds())


def test_beyond_what_a_page_can_hold_the_rest_is_one_row() -> None:
    line = thirds()[0]
    many = tuple(line for _ in range(MOST_LINES + 7))

    cells = Cells(written(HEAD, many))

    rest = [row for row in cells.rows if row[0] == "7 more lines, in lines.csv"]
    assert [row[-1] for row in rest] == [f"{7 * line.amount_minor / 100:.2f}"]


def test_prices_name_their_currency_and_what_is_estimated_is_explained() -> None:
    lines = thirds()
    guessed = tuple(replace(line, provenance="estimated") for line in lines)

    plain, estimated = written(HEAD, lines), written(HEAD, guessed)

    assert "USD per million" in plain
    assert "Such lines can be credited" in estimated
    assert "Such lines can be credited" not in plain


def test_what_no_line_says_stands_above_all() -> None:
    head = replaced(status="draft", remarks=(f"made while 2026-10 {EVIL} runs",))

    text = written(head, thirds())

    assert "Made while 2026-10 " in text.partition("<dl>")[0]
    assert EVIL not in text


def test_a_name_with_characters_that_nobody_sees_shows_them() -> None:
    """What is kept from before they were refused, as it was issued."""
    hidden = "Acme\u202e)dehctiws\u200b"
    payer = aggregate(meters=Meters(input=111_667), team=hidden, key=hidden)
    lines = draft([payer], invoice_id="inv_1", currency="USD", period=OCTOBER).lines
    terms = replace(TERMS, recipient=Party(name=hidden), purchase_order=hidden)

    text = "".join(page(replace(HEAD, terms=terms, reason=hidden), lambda: lines, ""))

    assert "\u202e" not in text
    assert "\u200b" not in text
    assert text.count("Acme[U+202E])dehctiws[U+200B]") >= 5
