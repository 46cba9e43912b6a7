"""FOCUS 1.2 as we hold ourselves to it: every row against every rule that a Cost and Usage file of
an LLM gateway can break. Stricter than the public validator, which lets half of these by.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from billing.money import minor_exponent

MANDATORY = frozenset((
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass",
    "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit",
    "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
))  # fmt: skip
OTHERS = frozenset((
    "AvailabilityZone", "BillingAccountType", "CapacityReservationId",
    "CapacityReservationStatus", "ChargeFrequency", "CommitmentDiscountCategory",
    "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus", "CommitmentDiscountType", "CommitmentDiscountUnit",
    "ConsumedQuantity", "ConsumedUnit", "ContractedUnitPrice", "InvoiceId", "ListUnitPrice",
    "PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "RegionId", "RegionName",
    "ResourceId", "ResourceName", "ResourceType", "ServiceSubcategory", "SkuId", "SkuMeter",
    "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "SubAccountType",
    "Tags",
))  # fmt: skip
NOT_NULL = MANDATORY - {
    "ChargeClass", "ChargeDescription", "PricingQuantity", "PricingUnit", "PublisherName"
}  # fmt: skip
INSTANTS = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
COSTS = (
    "BilledCost",
    "ContractedCost",
    "EffectiveCost",
    "ListCost",
    "PricingCurrencyEffectiveCost",
)
PRICES = (
    "ContractedUnitPrice", "ListUnitPrice", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyListUnitPrice",
)  # fmt: skip
QUANTITIES = ("CommitmentDiscountQuantity", "ConsumedQuantity", "PricingQuantity")
CONSUMED = ("ConsumedQuantity", "ConsumedUnit")
PRICED = ("PricingQuantity", *PRICES, "PricingUnit", "PricingCategory", "SkuId", "SkuMeter",
          "SkuPriceDetails", "SkuPriceId")  # fmt: skip
OF_COMMITMENTS = ("CommitmentDiscountCategory", "CommitmentDiscountType")
OF_THEIR_QUANTITY = ("CommitmentDiscountQuantity", "CommitmentDiscountUnit")
VALUES = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "CommitmentDiscountCategory": {"", "Spend", "Usage"},
    "CommitmentDiscountStatus": {"", "Used", "Unused"},
    "PricingCategory": {"", "Standard", "Committed", "Dynamic", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
    "ServiceSubcategory": {"Generative AI"},
}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
NUMBER = re.compile(r"-?(0|[1-9]\d*)\.\d+")
UNIT = re.compile(r"([1-9]\d* )?[A-Z][A-Za-z]*s")
NAME = re.compile(r"[A-Z][A-Za-z0-9]{0,49}")
OWN = re.compile(r"x_[A-Z][A-Za-z0-9]{0,47}")

Row = dict[str, str]
Fault = tuple[str, str]  # column, what is wrong


def faults(file: bytes, totals: dict[str, Decimal]) -> list[Fault]:
    """Everything wrong with a file that should add up to `totals` by InvoiceId."""
    if file.startswith(b"\xef\xbb\xbf"):
        return [("", "a byte order mark")]
    header, *records = csv.reader(io.StringIO(file.decode("utf-8"), newline=""))
    found = list(_of_header(header))
    if found or any(len(record) != len(header) for record in records):
        return found or [("", "a row of another length")]
    rows = [dict(zip(header, record, strict=True)) for record in records]
    for row in rows:
        found += [fault for rule in RULES for fault in rule(row)]
    return [*found, *_of_skus(rows), *_of_totals(rows, totals)]


def _of_header(header: Sequence[str]) -> Iterator[Fault]:
    for name in sorted(MANDATORY - set(header)):
        yield name, "a mandatory column is missing"
    if len(set(header)) != len(header):
        yield "", "a column is there twice"
    own = [name for name in header if name not in MANDATORY | OTHERS]
    for name in own:
        if OWN.fullmatch(name) is None:
            yield name, "no column of FOCUS, and not an own one"
    if list(header[len(header) - len(own) :]) != own:
        yield own[0], "own columns come last"
    for name in header:
        if name not in own and NAME.fullmatch(name) is None:
            yield name, "not a column's name"


def _nulls(row: Row) -> Iterator[Fault]:
    for name in NOT_NULL:
        if not row[name]:
            yield name, "null"
    for name, value in row.items():
        if value.strip().lower() in {"n/a", "null", "none", "nan"} or value != value.strip():
            yield name, "null is the empty field"


def _instants(row: Row) -> Iterator[Fault]:
    for name in INSTANTS:
        if INSTANT.fullmatch(row[name]) is None:
            yield name, "not UTC with a Z"
    for kind in ("Billing", "Charge"):
        if row[f"{kind}PeriodStart"] >= row[f"{kind}PeriodEnd"]:
            yield f"{kind}PeriodEnd", "not after its start"


def _numbers(row: Row) -> Iterator[Fault]:
    for name in (*COSTS, *PRICES, *QUANTITIES):
        value = row.get(name, "")
        if value and NUMBER.fullmatch(value) is None:
            yield name, "not a plain decimal"
        elif value.startswith("-") and name in PRICES:
            yield name, "a negative price"


def _values(row: Row) -> Iterator[Fault]:
    for name, allowed in VALUES.items():
        if row.get(name, "") not in allowed and (name in row):
            yield name, "not one of its values"
    for name in ("BillingCurrency", "PricingCurrency"):
        try:
            minor_exponent(row[name])
        except ValueError:
            yield name, "not a currency"
    for name in ("ConsumedUnit", "PricingUnit"):
        if row.get(name) and UNIT.fullmatch(row[name]) is None:
            yield name, "not a unit"


def _objects(row: Row) -> Iterator[Fault]:
    for name in ("Tags", "SkuPriceDetails"):
        if not row.get(name):
            continue
        try:
            found = msgspec.json.decode(row[name])
        except msgspec.DecodeError:
            yield name, "not JSON"
            continue
        if not isinstance(found, dict) or not all(map(_is_scalar, found.values())):
            yield name, "not an object of plain values"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _categories(row: Row) -> Iterator[Fault]:
    usage = row["ChargeCategory"] == "Usage"
    priced = usage or row["ChargeCategory"] == "Purchase"
    consumed = usage and row.get("CommitmentDiscountStatus") != "Unused"
    for expected, names in ((priced, PRICED), (consumed, CONSUMED)):
        for name in names:
            if expected != bool(row.get(name)):
                yield name, "null on usage" if expected else "on what is no usage"
    for one, other in (("RegionId", "RegionName"), ("SubAccountId", "SubAccountType")):
        if bool(row.get(one)) != bool(row.get(other)):
            yield other, f"not where there is a {one}"
    if row["InvoiceIssuerName"] != row["ProviderName"]:
        yield "InvoiceIssuerName", "not the provider"


def _commitments(row: Row) -> Iterator[Fault]:
    """Of a commitment everything is said or nothing, and what it covers is paid once."""
    named, used = bool(row.get("CommitmentDiscountId")), row["ChargeCategory"] == "Usage"
    for name in OF_COMMITMENTS:
        if named != bool(row.get(name)):
            yield name, "not where there is a commitment"
    counted = named and row["ChargeClass"] != "Correction"
    for name in OF_THEIR_QUANTITY:
        if counted != bool(row.get(name)):
            yield name, "not where a commitment has a quantity"
    if (named and used) != bool(row.get("CommitmentDiscountStatus")):
        yield "CommitmentDiscountStatus", "not where a commitment has usage"
    if (named and used) != (row.get("PricingCategory") == "Committed"):
        yield "PricingCategory", "not committed"
    if named:
        yield from _of_one_commitment(row)


def _of_one_commitment(row: Row) -> Iterator[Fault]:
    if row["ChargeCategory"] not in {"Usage", "Purchase"}:
        yield "CommitmentDiscountId", "on what is neither usage nor bought"
    if row["ChargeCategory"] == "Purchase" and row["EffectiveCost"] != "0.0":
        yield "EffectiveCost", "of what pays for usage to come"
    if row["ChargeClass"] == "Correction":
        return
    if row["CommitmentDiscountCategory"] == "Spend":
        unit, currency = row["CommitmentDiscountUnit"], row["PricingCurrency"]
        if unit != currency:
            yield "CommitmentDiscountUnit", "not the currency of a spend"
    if row["CommitmentDiscountQuantity"].startswith("-"):
        yield "CommitmentDiscountQuantity", "less than nothing"


def _products(row: Row) -> Iterator[Fault]:
    if row["ChargeCategory"] not in {"Usage", "Purchase"} or _is_broken(row):
        return
    quantity = Decimal(row["PricingQuantity"])
    for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
        if Decimal(row[cost]) != Decimal(row[price]) * quantity:
            yield cost, "not price times quantity"
    basis = row["PricingUnit"].partition(" ")[0]
    consumed = row.get("ConsumedQuantity")
    if consumed and Decimal(consumed) != quantity * (int(basis) if basis.isdigit() else 1):
        yield "PricingQuantity", "not what was consumed"


def _is_broken(row: Row) -> bool:
    return any(list(rule(row)) for rule in (_numbers, _values, _categories))


RULES: tuple[Callable[[Row], Iterator[Fault]], ...] = (
    _nulls, _instants, _numbers, _values, _objects, _categories, _commitments, _products
)  # fmt: skip


def _of_skus(rows: Sequence[Row]) -> Iterator[Fault]:
    skus: dict[str, str] = {}
    for row in rows:
        if row["SkuPriceId"] and skus.setdefault(row["SkuPriceId"], row["SkuId"]) != row["SkuId"]:
            yield "SkuPriceId", "under two SkuIds"


def _of_totals(rows: Sequence[Row], totals: dict[str, Decimal]) -> Iterator[Fault]:
    sums: dict[str, Decimal] = {}
    for row in rows:
        if NUMBER.fullmatch(row["BilledCost"]):
            before = sums.get(row["InvoiceId"], Decimal(0))
            sums[row["InvoiceId"]] = before + Decimal(row["BilledCost"])
    if sums != totals:
        yield "BilledCost", "does not add up to the invoice"
