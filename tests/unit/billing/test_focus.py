"""Our FOCUS export breaks no rule of our own strict suite, and that suite sees what is planted."""

import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal

import pytest

from billing import credit_notes, focus, focus_detail
from billing.csv_files import csv_text
from billing.drawdown import Standing, Sums, drawn
from billing.focus import COLUMNS, Bill
from billing.focus_detail import Detail
from billing.invoices import Draft, InvoiceLine, Minimum, charged, draft, rounded
from billing.meters import Meter, Meters
from billing.money import format_minor
from billing.periods import Window
from billing.prices import Rate, sealed_card
from billing.quantity import Schedule, Step
from tests.focus_rules import Row, faults
from tests.unit.billing.samples import aggregate, card

OCTOBER = Window("m2026-10", 1_790_805_600_000_000, 1_793_487_600_000_000)
SEPTEMBER = Window("m2026-09", 1_788_213_600_000_000, OCTOBER.start_us)
BILL = Bill(
    number="INV-000001",
    tenant_id="tenant_1",
    tenant="Acme",
    issuer="Example Gateway",
    currency="USD",
    period_start_us=OCTOBER.start_us,
    period_end_us=OCTOBER.end_us,
)
CARD = card(
    input="3", cache_read="0.3", cache_write_5m="3.75", cache_write_1h="6", output="15.000001"
)


def an_invoice() -> Draft:
    """Every kind of line that an invoice can have, and names that spreadsheets would run."""
    every = Meters(
        input=834_567, cache_read=400_000, cache_write_5m=7, cache_write_1h=8, output=87_655
    )
    late = {"period": SEPTEMBER, "corrects_invoice": "INV-000000"}
    return draft(
        [
            aggregate(card=CARD, meters=every, team="=SUM(A1)", key="+1"),
            aggregate(card=CARD, meters=Meters(input=1_000_000), cost_center="", team="free"),
            aggregate(card=CARD, meters=Meters(input=-100_000), **late),
        ],
        invoice_id="inv_1",
        currency="USD",
        period=OCTOBER,
        minimums=[Minimum(picos=138_060_000_000_000, period=OCTOBER)],
    )


def exported(lines: tuple[InvoiceLine, ...], bill: Bill = BILL, version: str = "1.2") -> bytes:
    rows = focus.rows(lines, bill, "1.4" if version == "1.4" else "1.2")
    return "".join(csv_text(rows)).encode()


def total() -> dict[str, Decimal]:
    return {"INV-000001": Decimal(format_minor(an_invoice().total_minor, "USD"))}


def test_our_export_breaks_no_rule_and_adds_up_to_the_invoice() -> None:
    made = an_invoice()

    assert {line.line_kind for line in made.lines} == {"usage", "minimum", "rounding"}
    assert faults(exported(made.lines), total()) == []


def of_a_commitment(*, prepaid: bool) -> Draft:
    """A month of 2 that is used up, one before it whose rest was too little, and late usage."""
    same = {"prepaid": prepaid, "sums": Sums()}
    before = Standing(
        key="cmt_1/2026-09-01", span=SEPTEMBER, committed_picos=10**12, settled=True, over=True,
        own=frozenset([SEPTEMBER.start_us]), prepaid=prepaid,
        sums=Sums(fee=10**12 * prepaid, true_up=10**12 * (not prepaid), unused=10**12),
    )  # fmt: skip
    now = Standing(
        key="cmt_1/2026-10-01", span=OCTOBER, committed_picos=2 * 10**12, overage_e4=800_000,
        own=frozenset([OCTOBER.start_us]), begun=True, ends=True, **same,
    )  # fmt: skip
    late = {"period": SEPTEMBER, "corrects_invoice": "INV-000000"}
    lines = charged(
        [
            aggregate(card=CARD, meters=Meters(input=1_000_000, output=1)),
            aggregate(card=CARD, meters=Meters(input=100_000), **late),
        ],
        invoice_id="inv_1", currency="USD", period=OCTOBER,
    )  # fmt: skip
    drawing = drawn(lines, [before, now], "inv_1")
    return rounded(drawing, invoice_id="inv_1", currency="USD", period=OCTOBER)


def at_a_term_s_end(*, prepaid: bool) -> Draft:
    now = Standing(
        key="cmt_1/2026-10-01", span=OCTOBER, committed_picos=10**13, prepaid=prepaid,
        own=frozenset([OCTOBER.start_us]), begun=True, ends=True,
    )  # fmt: skip
    lines = charged(
        [aggregate(card=CARD, meters=Meters(input=1_000_000))],
        invoice_id="inv_1", currency="USD", period=OCTOBER,
    )  # fmt: skip
    return rounded(drawn(lines, [now], "inv_1"), invoice_id="inv_1", currency="USD", period=OCTOBER)


@pytest.mark.parametrize("prepaid", [True, False])
@pytest.mark.parametrize("made_by", [of_a_commitment, at_a_term_s_end])
def test_commitments_break_no_rule_and_are_paid_once(
    made_by: Callable[..., Draft], prepaid: bool
) -> None:
    made = made_by(prepaid=prepaid)
    written = exported(made.lines)

    billed = Decimal(format_minor(made.total_minor, "USD"))
    assert faults(written, {"INV-000001": billed}) == []
    detail = list(focus_detail.rows(made.lines, Detail(bill=BILL, status="draft", created_at_us=0)))
    at = detail[0].index("BilledCost")
    assert sum(Decimal(row[at]) for row in detail[1:]) == billed


def test_what_is_used_of_a_commitment_and_what_is_not_is_what_was_bought() -> None:
    rows = read(exported(at_a_term_s_end(prepaid=True).lines))

    named = ("ChargeCategory", "CommitmentDiscountStatus", "BilledCost", "EffectiveCost")
    assert [
        tuple(row[name] for name in (*named, "CommitmentDiscountQuantity")) for row in rows
    ] == [
        ("Usage", "Used", "0.0", "3.0", "3.0"),
        ("Purchase", "", "10.0", "0.0", "10.0"),
        ("Usage", "Unused", "0.0", "7.0", "7.0"),
    ]
    assert {row["CommitmentDiscountId"] for row in rows} == {"cmt_1/2026-10-01"}
    later = read(exported(at_a_term_s_end(prepaid=False).lines))
    assert [(row["BilledCost"], row["EffectiveCost"]) for row in later] == [
        ("3.0", "3.0"),
        ("7.0", "7.0"),
    ]


def test_usage_beyond_a_commitment_is_a_price_point_of_its_own() -> None:
    rows = read(exported(of_a_commitment(prepaid=True).lines))

    said = "chat-default Input Tokens beyond the commitment"
    (beyond,) = (row for row in rows if row["ChargeDescription"] == said)
    assert beyond["SkuPriceId"] == "chat-default/input/standard/overage-80"
    assert (beyond["ListUnitPrice"], beyond["ContractedUnitPrice"]) == ("3.0", "2.4")
    assert (beyond["CommitmentDiscountId"], beyond["PricingCategory"]) == ("", "Standard")


PLANTED_ON_COMMITMENTS: dict[str, tuple[str, str]] = {
    "no status": ("CommitmentDiscountStatus", ""),
    "no quantity": ("CommitmentDiscountQuantity", ""),
    "a negative quantity": ("CommitmentDiscountQuantity", "-1.0"),
    "another unit": ("CommitmentDiscountUnit", "Tokens"),
    "an unknown category": ("CommitmentDiscountCategory", "Money"),
    "a plain price": ("PricingCategory", "Standard"),
    "billed again": ("BilledCost", "3.0"),
}


@pytest.mark.parametrize(
    ("column", "value"), PLANTED_ON_COMMITMENTS.values(), ids=PLANTED_ON_COMMITMENTS.keys()
)
def test_a_defect_of_a_commitment_is_seen(column: str, value: str) -> None:
    made = at_a_term_s_end(prepaid=True)
    rows = read(exported(made.lines))
    rows[0][column] = value
    table = [tuple(rows[0]), *(tuple(row.values()) for row in rows)]

    found = faults("".join(csv_text(table)).encode(), {"INV-000001": Decimal("10.00")})

    assert column in {name for name, _ in found}, found


def test_a_credit_note_breaks_no_rule_either() -> None:
    line = credit_notes.line_of(
        50, currency="USD", note_id="inv_2", number="INV-000001", credited=an_invoice().lines[0],
        period=OCTOBER,
    )  # fmt: skip
    bill = Bill(**{**as_dict(BILL), "number": "INV-CN-000001", "reason": "slow"})

    written = exported((line,), bill)

    assert faults(written, {"INV-CN-000001": Decimal("-0.50")}) == []
    (row,) = read(written)
    assert (row["ChargeCategory"], row["BilledCost"]) == ("Credit", "-0.5")
    assert row["ChargeDescription"] == "Credit on INV-000001: slow"


def test_a_line_of_usage_says_all_that_a_reader_needs() -> None:
    row = read(exported(an_invoice().lines))[0]

    assert row["ConsumedQuantity"] == "1000000.0"
    assert (row["PricingQuantity"], row["PricingUnit"]) == ("1.0", "1000000 Tokens")
    assert (row["ListUnitPrice"], row["BilledCost"]) == ("3.0", "3.0")
    assert (row["SkuId"], row["SkuMeter"]) == ("chat-default/input", "Input Tokens")
    assert row["SkuPriceDetails"] == (
        '{"x_ModelId":"chat-default","x_TokenCacheAction":"Uncached","x_TokenDirection":"Input"}'
    )
    assert (row["SubAccountId"], row["SubAccountType"]) == ("free", "Team")
    assert row["Tags"] == '{"app":"indexer","team":"free"}'
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == (
        "2026-09-30T22:00:00Z",
        "2026-10-31T23:00:00Z",
    )


def test_the_tiers_of_a_price_are_price_points_of_one_sku_whatever_its_version() -> None:
    steps = Schedule("graduated", (Step(0, 3_000_000), Step(10_000_000, 2_000_000)))
    by_month = sealed_card("USD", [Rate(Meter.INPUT, 3_000_000, "price_1", steps)])
    by_prompt = sealed_card("USD", [Rate(Meter.INPUT, 2_000_000, "price_2>200000")])
    made = draft(
        [
            aggregate(card=by_month, meters=Meters(input=10_200_000)),
            aggregate(card=by_prompt, meters=Meters(input=200_001)),
        ],
        invoice_id="inv_1",
        currency="USD",
        period=OCTOBER,
    )

    written = exported(made.lines)

    assert faults(written, {"INV-000001": Decimal(format_minor(made.total_minor, "USD"))}) == []
    usage = [row for row in read(written) if row["ChargeCategory"] == "Usage"]
    assert [(row["SkuPriceId"], row["BilledCost"]) for row in usage] == [
        ("chat-default/input/standard", "30.0"),
        ("chat-default/input/standard/quantity-10000000", "0.4"),
        ("chat-default/input/standard/context-200000", "0.400002"),
    ]
    assert {row["SkuId"] for row in usage} == {"chat-default/input"}


def test_a_service_tier_is_a_sku_of_its_own_with_price_points_of_its_own() -> None:
    rates = [Rate(Meter.INPUT, picos, f"price_{picos}{tier}") for picos, tier in TIERED]
    lines = [
        aggregate(card=sealed_card("USD", [rate]), meters=Meters(input=1_000_000)) for rate in rates
    ]
    made = draft(lines, invoice_id="inv_1", currency="USD", period=OCTOBER)

    written = exported(made.lines)

    assert faults(written, {"INV-000001": Decimal(format_minor(made.total_minor, "USD"))}) == []
    usage = [row for row in read(written) if row["ChargeCategory"] == "Usage"]
    assert sorted((row["SkuId"], row["SkuPriceId"], row["BilledCost"]) for row in usage) == [
        ("chat-default/input", "chat-default/input/standard", "3.0"),
        ("chat-default/input/batch", "chat-default/input/batch", "1.5"),
        ("chat-default/input/priority", "chat-default/input/priority/context-200000", "12.0"),
    ]
    told = {row["SkuId"]: json.loads(row["SkuPriceDetails"]) for row in usage}
    assert told["chat-default/input/batch"]["x_ServiceTier"] == "batch"
    assert "x_ServiceTier" not in told["chat-default/input"]


TIERED = ((3_000_000, ""), (1_500_000, "@batch"), (12_000_000, "@priority>200000"))


def test_a_contract_s_price_stands_beside_the_list_s() -> None:
    agreed = sealed_card("USD", [Rate(Meter.INPUT, 2_400_000, "agreed", None, 3_000_000)])
    made = draft(
        [aggregate(card=agreed, meters=Meters(input=1_500_000))],
        invoice_id="inv_1", currency="USD", period=OCTOBER,
    )  # fmt: skip
    written = exported(made.lines)

    assert faults(written, {"INV-000001": Decimal("3.60")}) == []
    (row,) = read(written)
    assert (row["ListUnitPrice"], row["ListCost"]) == ("3.0", "4.5")
    assert (row["ContractedUnitPrice"], row["ContractedCost"]) == ("2.4", "3.6")
    assert row["BilledCost"] == row["EffectiveCost"] == "3.6"
    assert row["PricingCurrencyListUnitPrice"] == "3.0"
    assert row["PricingCurrencyContractedUnitPrice"] == "2.4"


def test_what_came_late_is_a_correction_of_its_own_period() -> None:
    late = [row for row in read(exported(an_invoice().lines)) if row["ChargeClass"]]

    assert [row["BilledCost"] for row in late] == ["-0.3"]
    assert late[0]["ChargePeriodEnd"] == late[0]["BillingPeriodStart"]
    assert late[0]["x_CorrectsInvoice"] == "INV-000000"
    assert late[0]["ChargeDescription"].startswith("Correction to INV-000000")


def test_the_version_that_is_marked_experimental_has_its_own_columns() -> None:
    written = read(exported(an_invoice().lines, version="1.4"))

    assert {"HostProviderName", "ServiceProviderName", "InvoiceDetailId"} <= set(written[0])
    assert not {"ProviderName", "PublisherName"} & set(written[0])
    assert [*written[0]] == [*COLUMNS["1.4"]]


def read(written: bytes) -> list[Row]:
    return list(csv.DictReader(io.StringIO(written.decode(), newline="")))


def as_dict(bill: Bill) -> dict[str, object]:
    return {name: getattr(bill, name) for name in bill.__struct_fields__}


Planted = Callable[[list[Row]], object]


def everywhere(column: str, value: str) -> Planted:
    return lambda rows: [row.update({column: value}) for row in rows]


def once(column: str, value: str | Callable[[str], str], category: str = "Usage") -> Planted:
    def plant(rows: list[Row]) -> None:
        row = next(each for each in rows if each["ChargeCategory"] == category)
        row[column] = value if isinstance(value, str) else value(row[column])

    return plant


def renamed(before: str, after: str, *, first: bool = False) -> Planted:
    def plant(rows: list[Row]) -> None:
        for row in rows:
            columns = {after if name == before else name: row[name] for name in row}
            if first:
                columns = {after: columns[after]} | columns
            row.clear()
            row.update(columns)

    return plant


def without(column: str) -> Planted:
    return lambda rows: [row.pop(column) for row in rows]


def whole(text: str) -> str:
    return text.removesuffix(".0")


def to_cents(text: str) -> str:
    return str(round(Decimal(text), 2) + Decimal("0.00"))


DEFECTS: dict[str, tuple[str, Planted]] = {
    "unparsable date": ("ChargePeriodStart", once("ChargePeriodStart", "October 1st")),
    "thousands separator": ("ConsumedQuantity", once("ConsumedQuantity", "1,000,000.0")),
    "currency sign": ("BilledCost", once("BilledCost", "$3.0")),
    "lower-case currency": ("BillingCurrency", everywhere("BillingCurrency", "usd")),
    "tags that are no JSON": ("Tags", once("Tags", "team=search")),
    "no category": ("ChargeCategory", everywhere("ChargeCategory", "Tokens")),
    "1M tokens": ("PricingUnit", once("PricingUnit", "1M tokens")),
    "quantity of a credit": (
        "PricingQuantity",
        once("PricingQuantity", "1.0", category="Adjustment"),
    ),
    "null account name": ("BillingAccountName", once("BillingAccountName", "")),
    "one price under two SKUs": ("SkuPriceId", once("SkuId", "chat-other/input")),
    "whole-number quantity": ("ConsumedQuantity", once("ConsumedQuantity", whole)),
    "negative list price": ("ListUnitPrice", once("ListUnitPrice", "-3.0")),
    "missing mandatory column": ("ServiceName", without("ServiceName")),
    "offset of zero": (
        "BillingPeriodEnd",
        once("BillingPeriodEnd", lambda text: text.replace("Z", "+00:00")),
    ),
    "offset of two hours": (
        "ChargePeriodEnd",
        once("ChargePeriodEnd", "2026-11-01T01:00:00+02:00"),
    ),
    "exponent with a plus": ("PricingQuantity", once("PricingQuantity", "1.0E+0")),
    "list cost beside its price": ("ListCost", once("ListCost", "3.1")),
    "contracted cost in cents": (
        "ContractedCost",
        lambda rows: [row.update(ContractedCost=to_cents(row["ContractedCost"])) for row in rows],
    ),
    "sum beside the invoice": ("BilledCost", once("BilledCost", "3.01")),
    "array among tags": ("Tags", once("Tags", '{"team":["search","ads"]}')),
    "refund in one row": ("ChargeCategory", once("ChargeCategory", "Refund")),
    "lower-case unit": ("ConsumedUnit", once("ConsumedUnit", "tokens")),
    "usage without quantity": ("PricingQuantity", once("PricingQuantity", "")),
    "usage without price id": ("SkuPriceId", once("SkuPriceId", "")),
    "own columns first": ("x_LineId", renamed("x_LineId", "x_LineId", first=True)),
    "own column without x_": ("PriceVersion", renamed("x_PriceVersion", "PriceVersion")),
}


@pytest.mark.parametrize(("column", "plant"), DEFECTS.values(), ids=DEFECTS.keys())
def test_every_planted_defect_is_seen_and_named(column: str, plant: Planted) -> None:
    rows = read(exported(an_invoice().lines))
    plant(rows)
    table = [tuple(rows[0]), *(tuple(row.values()) for row in rows)]

    found = faults("".join(csv_text(table)).encode(), total())

    assert column in {name for name, _ in found}, found


def test_there_are_26_defects() -> None:
    assert len(DEFECTS) == 26
