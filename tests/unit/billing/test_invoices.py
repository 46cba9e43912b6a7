import csv
import io
from decimal import Decimal
from itertools import permutations
from zoneinfo import ZoneInfo

import pytest

from billing.csv_files import csv_text, safe_text
from billing.invoices import (
    COLUMNS,
    Aggregate,
    Draft,
    InvoiceLine,
    UnbalancedError,
    csv_rows,
    draft,
    in_minor_units,
)
from billing.meters import Meters
from billing.periods import month
from gateway.stores.sql.invoice_tables import invoice_lines
from tests.unit.billing.samples import aggregate, card

NOVEMBER = month("2026-11", ZoneInfo("Europe/Berlin"))


def drafted(*aggregates: Aggregate, currency: str = "USD") -> Draft:
    return draft(aggregates, invoice_id="inv_1", currency=currency, period=NOVEMBER)


def exported(made: Draft) -> list[dict[str, str]]:
    rows = csv_rows(made.lines, invoice_number=None, tenant="acme", currency="USD")
    return list(csv.DictReader(io.StringIO("".join(csv_text(rows)), newline="")))


def test_a_line_has_the_columns_of_the_table() -> None:
    columns = {column.name for column in invoice_lines.columns}

    assert set(InvoiceLine.__struct_fields__) == columns - {"invoice_id", "position"}


def test_lines_are_exact_and_one_more_makes_them_the_rounded_total() -> None:
    made = drafted(aggregate(meters=Meters(input=1_000, output=499)))

    assert [(line.meter, line.amount_picos, line.line_kind) for line in made.lines] == [
        ("input", 3_000_000_000, "usage"),
        ("output", 7_485_000_000, "usage"),
        ("", -485_000_000, "rounding"),
    ]
    assert made.total_minor == 1
    assert made.rounding_picos == -485_000_000


def test_a_total_that_is_exact_needs_no_rounding_line() -> None:
    made = drafted(aggregate(meters=Meters(input=1_000_000)))

    assert [line.line_kind for line in made.lines] == ["usage"]
    assert (made.total_minor, made.rounding_picos) == (300, 0)


def test_ten_thousand_small_charges_are_not_rounded_one_by_one() -> None:
    call = card(input="0.49")
    calls = [aggregate(card=call, meters=Meters(input=10_000)) for _ in range(10_000)]

    made = drafted(*calls)

    assert made.total_minor == 49_00
    assert len(made.lines) == 1


def test_three_cost_centers_of_a_third_share_one_rounding() -> None:
    price = card(input="0.335")
    made = drafted(
        *(
            aggregate(cost_center=name, card=price, meters=Meters(input=1_000_000))
            for name in ("A", "B", "C")
        )
    )

    assert made.total_minor == 101
    assert made.rounding_picos == 5_000_000_000


def test_usage_of_two_price_versions_is_two_lines() -> None:
    old, new = card(input="3"), card(input="2")

    made = drafted(
        aggregate(card=old, meters=Meters(input=1_000_000)),
        aggregate(card=new, meters=Meters(input=1_000_000)),
    )

    assert [line.amount_picos for line in made.lines] == [2 * 10**12, 3 * 10**12]
    assert made.total_minor == 500


def test_estimates_stand_on_lines_of_their_own() -> None:
    made = drafted(
        aggregate(meters=Meters(input=1_000_000)),
        aggregate(meters=Meters(input=1_000_000), provenance="estimated"),
    )

    assert [line.provenance for line in made.lines] == ["estimated", "reported"]


def test_the_order_of_rows_changes_no_byte() -> None:
    rows = [
        aggregate(),
        aggregate(meters=Meters(output=7)),
        aggregate(team="ads"),
        aggregate(cost_center="", key="other"),
    ]

    assert len({drafted(*order) for order in permutations(rows)}) == 1


def test_meters_stand_in_their_own_order_within_a_payer() -> None:
    made = drafted(aggregate(meters=Meters(1, 2, 3, 4, 5)))

    assert [line.meter for line in made.lines] == [
        "input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "",
    ]  # fmt: skip


def test_refreshing_a_draft_keeps_the_ids_of_its_lines() -> None:
    before = drafted(aggregate(meters=Meters(input=10)))
    after = drafted(aggregate(meters=Meters(input=20)), aggregate(team="ads"))

    assert {line.line_id for line in before.lines} < {line.line_id for line in after.lines}


def test_no_two_invoices_share_a_line_id() -> None:
    first = drafted(aggregate())
    second = draft([aggregate()], invoice_id="inv_2", currency="USD", period=NOVEMBER)

    ids = [line.line_id for line in (*first.lines, *second.lines)]

    assert len(ids) == len(set(ids)) == 6


def test_a_month_without_usage_is_an_invoice_of_nothing() -> None:
    assert drafted() == Draft((), 0, 0)


def test_rows_that_do_not_come_to_what_was_charged_are_not_invoiced() -> None:
    with pytest.raises(UnbalancedError, match=r"team 'search'.*0.0105.*charged 0.0104 USD"):
        drafted(aggregate(charge_picos=10_400_000_000))


def test_a_card_in_another_currency_is_not_invoiced() -> None:
    with pytest.raises(ValueError, match="in EUR; the invoice is in USD"):
        drafted(aggregate(card=card("EUR", input="3", output="15")))


def test_a_currency_without_minor_units_is_rounded_to_whole_units() -> None:
    made = drafted(
        aggregate(card=card("JPY", input="416.5"), meters=Meters(input=1_000_000)), currency="JPY"
    )

    assert made.total_minor == 417
    assert made.rounding_picos == 500_000_000_000


def test_the_csv_has_the_promised_columns_and_adds_up() -> None:
    made = drafted(aggregate(), aggregate(team="ads, brand", meters=Meters(output=1)))
    rows = exported(made)

    assert tuple(rows[0]) == COLUMNS
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(made.total_minor) / 100
    assert [row["line_kind"] for row in rows] == ["usage", "usage", "usage", "rounding"]
    assert rows[0]["team"] == "ads, brand"


def test_a_csv_row_says_everything_about_its_line() -> None:
    (row,) = exported(drafted(aggregate(meters=Meters(input=1_000_000))))

    assert row | {"line_id": ""} == {
        "line_id": "",
        "invoice_number": "",
        "tenant": "acme",
        "cost_center": "CC-100",
        "team": "search",
        "key": "indexer",
        "model": "chat-default",
        "backend_region": "eu-west",
        "meter": "input",
        "quantity": "1000000",
        "unit": "Tokens",
        "unit_price_per_million": "3",
        "price_version": "v_input",
        "amount": "3",
        "currency": "USD",
        "charge_period_start": "2026-10-31T23:00:00Z",
        "charge_period_end": "2026-11-30T23:00:00Z",
        "provenance": "reported",
        "line_kind": "usage",
        "corrects_invoice": "",
    }


def test_a_tiny_negative_amount_stays_a_number() -> None:
    made = drafted(aggregate(meters=Meters(input=1)))

    assert [row["amount"] for row in exported(made)] == ["0.000003", "-0.000003"]


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@cmd", "\tx", "\rx", "\nx", "\uff1dx", "\uff0bx", "\uff0dx", "\uff20x"],
)
def test_text_that_a_spreadsheet_would_run_is_made_safe(text: str) -> None:
    (row,) = exported(drafted(aggregate(key=text, meters=Meters(input=1_000_000))))

    assert row["key"] == f"'{text}"


def test_ordinary_text_is_left_alone() -> None:
    assert safe_text("search-team = 1") == "search-team = 1"
    assert safe_text("") == ""


def test_csv_is_written_as_rfc_4180_has_it() -> None:
    written = list(csv_text([("a", "b,c"), ('say "hi"', "two\nlines")]))

    assert written == ['a,"b,c"\r\n', '"say ""hi""","two\nlines"\r\n']


def test_the_largest_remainder_rises_and_of_equal_ones_the_first() -> None:
    tenths = [n * 10**9 for n in (1, 6, 3)]  # of a cent

    assert in_minor_units(tenths, "USD") == [0, 1, 0]
    assert in_minor_units([5 * 10**9] * 3, "USD") == [1, 1, 0]
    assert in_minor_units([-each for each in tenths], "USD") == [0, -1, 0]
