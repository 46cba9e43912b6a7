"""The page behind a line, and the page of a request's rating: every figure leads to the next."""

from collections.abc import Iterable
from html import unescape
from typing import get_args

from msgspec.structs import replace

from billing.explained_page import (
    CAUSES,
    MOST_REQUESTS,
    Booking,
    Change,
    Explained,
    Rated,
    RatedAttempt,
    rating_page,
    requests_page,
)
from billing.invoices import LineKind, draft
from billing.meters import Meter, Meters
from billing.periods import Window
from billing.prices import Rate, sealed_card
from billing.quantity import Schedule, Step
from billing.rating import lines
from tests.unit.billing.samples import aggregate
from tests.unit.billing.test_invoice_page import EVIL, Cells

OCTOBER = Window("m2026-10", 1_790_805_600_000_000, 1_793_487_600_000_000)
STEPS = Schedule("graduated", (Step(0, 3_000_000), Step(10_000_000, 2_000_000)))
CARD = sealed_card(
    "USD",
    [
        Rate(Meter.INPUT, 3_000_000, "price_1@priority>200000", STEPS, 4_000_000),
        Rate(Meter.OUTPUT, 15_000_000, "price_2"),
    ],
)


def of_a_step() -> Explained:
    """The second step's line of 10.2 million tokens that one request used."""
    made = draft(
        [aggregate(card=CARD, meters=Meters(input=10_200_000), team=EVIL)],
        invoice_id="inv_1", currency="USD", period=OCTOBER,
    )  # fmt: skip
    return Explained(
        invoice="Invoice INV-000042",
        tenant=EVIL,
        timezone="Europe/Berlin",
        currency="USD",
        invoice_currency="USD",
        line=made.lines[1],
        number=2,
        booked_at_picos=3_000_000,
        requests=1,
        quantity=10_200_000,
        amount_picos=30_600_000_000_000,
        changes=(
            Change("other_steps", -10_000_000, -30_000_000_000_000),
            Change("quantity_tiers", 0, -200_000_000_000),
        ),
        billed_picos=400_000_000_000,
        adds_up=True,
    )


def booking(number: int) -> Booking:
    return Booking(
        at_us=OCTOBER.start_us, request_id=f"req_{number}", team=EVIL, app="bot", model="chat",
        provenance="estimated", quantity=10_200_000, picos=30_600_000_000_000,
    )  # fmt: skip


def rows(of: Explained, bookings: Iterable[Booking]) -> list[list[str]]:
    return Cells("".join(requests_page(of, bookings, ""))).rows


def test_from_bookings_to_the_line_every_step_is_a_row() -> None:
    found = rows(of_a_step(), [booking(1)])

    assert found[1:5] == [
        ["1 booking at 3 USD a million", "10,200,000", "30.6"],
        ["on the lines of the price's other steps", "-10,000,000", "-30"],
        ["what the month's quantity makes of the price", "", "-0.2"],
        ["The line: 200,000 tokens at 2 USD a million", "0.4 USD", ""],
    ]
    at, *rest = found[6]
    assert at == "2026-10-01 00:00:00+02:00"
    assert rest == ["req_1", EVIL, "bot", "chat (estimated)", "10,200,000", "30.6"]


def test_the_page_names_the_line_as_the_invoice_s_page_does_and_runs_nothing() -> None:
    text = "".join(requests_page(of_a_step(), [booking(1)], ""))

    for said in ("Line 2 of Invoice INV-000042", "service tier", "priority", "0.40 USD, so that"):
        assert said.lower() in text.lower(), said
    assert EVIL in unescape(text)
    assert "<img" not in text
    assert "not what the invoice says" not in text


def test_what_does_not_add_up_says_so_above_all() -> None:
    text = "".join(requests_page(replace(of_a_step(), adds_up=False), [], ""))

    assert "This is not what the invoice says" in text.partition("<dl>")[0]


def test_beyond_what_a_page_can_hold_the_rest_is_counted_and_never_read() -> None:
    read = 0

    def bookings() -> Iterable[Booking]:
        nonlocal read
        for read in range(1, MOST_REQUESTS + 500):
            yield booking(read)

    found = rows(replace(of_a_step(), requests=MOST_REQUESTS + 1_000), bookings())

    assert found[-2][0] == "1,000 more; the admin API lists them all"
    assert read == MOST_REQUESTS + 1


def test_a_request_s_rating_says_what_decided_each_price() -> None:
    usage = Meters(input=250_000, output=3)
    rated = RatedAttempt(
        attempt=2, winner=True, provenance="reported", hold="settled", region="eu",
        lines=lines(usage, CARD), picos=750_045_000_000, invoice="INV-000042",
    )  # fmt: skip
    lost = replace(rated, attempt=1, winner=False, lines=(), picos=0, invoice=None)
    of = Rated(
        request_id="req_1", tenant="acme", timezone="UTC", team=EVIL, app="bot", model="chat",
        operation="chat", at_us=0, currency="USD", attempts=(lost, rated),
    )  # fmt: skip

    text = "".join(rating_page([of], ""))
    assert "Rating of req_1" in text
    assert "<h1>Rating of 2 requests" in "".join(rating_page([of, of], ""))
    found = Cells(text).rows

    assert found[1][0] == "Input"
    assert found[1][1] == (
        "price_1@priority>200000; service tier priority; of prompts above 200,000 tokens; 4 in the "
        "list; graduated by the month's tokens: 3 above 0, 2 above 10,000,000; booked at the "
        "dearest, and the invoice has what the month's total makes of it"
    )
    assert found[1][2:] == ["250,000", "3 a million", "0.75"]
    assert found[2] == ["Output", "price_2", "3", "15 a million", "0.000045"]
    assert found[3][:3] == ["Charged", "", "0.750045 USD"]
    assert "Invoice INV-000042" in text
    assert "no: another attempt answered" in text
    assert "<img" not in text


def test_every_kind_of_line_that_has_no_bookings_has_its_words() -> None:
    assert set(get_args(LineKind)) - {"usage"} <= set(CAUSES)
