"""An invoice's lines as a FOCUS Cost and Usage dataset: one row a line, in their order.

Version 1.2 is what we vouch for. 1.4 is experimental: its text was read as a late draft.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from billing.csv_files import safe_text
from billing.drawdown import overage_of
from billing.exchange import Amounts, Exchange
from billing.invoices import OF_USAGE, InvoiceLine
from billing.meters import Meter
from billing.money import format_decimal, format_picos
from billing.periods import rfc3339
from billing.prices import amount_per_million
from billing.service_tiers import ServiceTier, tier_of

Version = Literal["1.2", "1.4"]

_BOTH: Final = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType",
    "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass",
    "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName",
    "CommitmentDiscountQuantity", "CommitmentDiscountStatus", "CommitmentDiscountType",
    "CommitmentDiscountUnit", "ConsumedQuantity", "ConsumedUnit", "ContractedCost",
    "ContractedUnitPrice", "EffectiveCost", "InvoiceId", "InvoiceIssuerName", "ListCost",
    "ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity",
    "PricingUnit", "RegionId", "RegionName", "ServiceCategory", "ServiceName",
    "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId",
    "SubAccountName", "SubAccountType", "Tags",
)  # fmt: skip
_OF_VERSION: Final[dict[Version, tuple[str, ...]]] = {
    "1.2": ("ProviderName", "PublisherName", "ResourceId", "ResourceName", "ResourceType"),
    "1.4": ("HostProviderName", "InvoiceDetailId", "ServiceProviderName"),
}
_OWN: Final = ("x_CorrectsInvoice", "x_LineId", "x_PriceVersion", "x_Provenance")
COLUMNS: Final[dict[Version, tuple[str, ...]]] = {
    version: (*sorted((*_BOTH, *more)), *_OWN) for version, more in _OF_VERSION.items()
}
_COMMITMENT_COLUMNS: Final = {
    "CommitmentDiscountCategory": "Spend",
    "CommitmentDiscountType": "Spend Commitment",
}
_COMMITMENTS: Final = "Commitments"
UNIT: Final = "Tokens"
PRICING_UNIT: Final = "1000000 Tokens"
_TOKENS_DECIMALS: Final = 6


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What all rows of one invoice have in common. `number` is None of a draft; `reason` is a
    credit note's.
    """

    number: str | None
    tenant_id: str
    tenant: str
    issuer: str
    currency: str
    period_start_us: int
    period_end_us: int
    reason: str | None = None
    exchange: Exchange | None = None


class _Sku(msgspec.Struct, frozen=True):
    """What a meter is called in FOCUS, and what is said of it."""

    meter: str
    direction: str
    cache_action: str | None = None
    lifetime: str | None = None


_SKUS: Final = {
    Meter.INPUT.value: _Sku("Input Tokens", "Input", "Uncached"),
    Meter.CACHE_READ.value: _Sku("Cache Read Input Tokens", "Input", "Read"),
    Meter.CACHE_WRITE_5M.value: _Sku("Cache Write 5m Input Tokens", "Input", "Write", "5m"),
    Meter.CACHE_WRITE_1H.value: _Sku("Cache Write 1h Input Tokens", "Input", "Write", "1h"),
    Meter.OUTPUT.value: _Sku("Output Tokens", "Output"),
}


def rows(lines: Iterable[InvoiceLine], bill: Bill, version: Version) -> Iterator[tuple[str, ...]]:
    """The header, then a row a line; what commitments paid before is a cost of nothing on the lines
    of usage, and not a row of its own. Null is the empty field; numbers have a point and no
    exponent; text that a spreadsheet would run is made safe, and nothing else. All rows of an
    invoice add up to its total in BilledCost.
    """
    columns = COLUMNS[version]
    yield columns
    shared, amounts = _shared(bill), Amounts(bill.exchange)
    for line in (each for each in lines if each.line_kind != "drawdown"):
        row = shared | _charge(line, bill, amounts)
        if line.line_kind in OF_USAGE:
            row |= _usage(line, amounts)
        if line.commitment is not None and line.line_kind != "overage":
            row |= _committed(line, row, amounts)
        yield tuple(row.get(column, "") for column in columns)


def _shared(bill: Bill) -> dict[str, str]:
    issuer = safe_text(bill.issuer)
    providers = ("HostProviderName", "ProviderName", "PublisherName", "ServiceProviderName")
    return dict.fromkeys(("InvoiceIssuerName", *providers), issuer) | {
        "BillingAccountId": bill.tenant_id,
        "BillingAccountName": safe_text(bill.tenant),
        "BillingAccountType": "Tenant",
        "BillingCurrency": bill.currency,
        "BillingPeriodEnd": rfc3339(bill.period_end_us),
        "BillingPeriodStart": rfc3339(bill.period_start_us),
        "InvoiceId": safe_text(bill.number or ""),
        "PricingCurrency": bill.currency if bill.exchange is None else bill.exchange.currency,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "LLM Inference",
        "ServiceSubcategory": "Generative AI",
    }


def _charge(line: InvoiceLine, bill: Bill, amounts: Amounts) -> dict[str, str]:
    """What every line has. Late usage is a correction; a credit note or rounding is a charge of its
    own kind. A note is made in the invoice's currency, whatever prices are in.
    """
    amount = decimal(amounts.text(line.line_kind, line.amount_picos, line.corrects_invoice))
    priced_in = {"PricingCurrency": bill.currency} if line.line_kind == "credit" else {}
    costs = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
    row = (
        dict.fromkeys(costs, amount)
        | priced_in
        | {
            "PricingCurrencyEffectiveCost": decimal(format_picos(line.amount_picos)),
            "ChargeCategory": category(line),
            "ChargeClass": "Correction" if _is_correction(line) else "",
            "ChargeDescription": safe_text(description(line, bill)),
            "ChargeFrequency": "Usage-Based" if category(line) == "Usage" else "One-Time",
            "ChargePeriodEnd": rfc3339(line.period_end_us),
            "ChargePeriodStart": rfc3339(line.period_start_us),
            "InvoiceDetailId": line.line_id,
            "Tags": _json({"app": line.key, "team": line.team}),
            "x_CorrectsInvoice": safe_text(line.corrects_invoice or ""),
            "x_LineId": line.line_id,
        }
    )
    account = line.cost_center or line.team
    if account:
        row["SubAccountId"] = row["SubAccountName"] = safe_text(account)
        row["SubAccountType"] = "Cost Center" if line.cost_center else "Team"
    return row


def _is_correction(line: InvoiceLine) -> bool:
    """Of what another invoice said; also where that is of no earlier month: what is taken back of a
    commitment, of which there is no quantity below nothing.
    """
    if line.line_kind == "credit":
        return False
    less = line.line_kind in {"usage", "unused"} and (line.commitment_picos or 0) < 0
    return less or line.corrects_invoice is not None


_CATEGORIES: Final = {
    "usage": "Usage",
    "overage": "Usage",
    "commitment": "Purchase",
    "true_up": "Usage",
    "unused": "Usage",
    "minimum": "Adjustment",
    "credit": "Credit",
    "rounding": "Adjustment",
}


def category(line: InvoiceLine) -> str:
    """Of the charge. What is paid at the end of a term, and all of it rolls over, is bought."""
    if line.line_kind == "true_up" and not line.commitment_picos:
        return "Purchase"
    return _CATEGORIES[line.line_kind]


def billed_text(line: InvoiceLine, amounts: Amounts) -> str:
    """Nothing where a commitment that was charged before pays the line."""
    picos = 0 if line.commitment_paid else line.amount_picos
    return decimal(amounts.text(line.line_kind, picos, line.corrects_invoice))


def description(line: InvoiceLine, bill: Bill) -> str:
    correction = f"Correction to {line.corrects_invoice}: " if line.corrects_invoice else ""
    match line.line_kind:
        case "usage":
            return f"{correction}{line.model} {_SKUS[line.meter].meter}"
        case "overage":
            return f"{correction}{line.model} {_SKUS[line.meter].meter} beyond the commitment"
        case "commitment":
            return f"Commitment {line.commitment}"
        case "true_up":
            return f"Commitment {line.commitment} beyond what was used of it"
        case "unused":
            return f"{correction}Commitment {line.commitment}: what of it expired"
        case "minimum":
            return f"{correction}Agreed minimum beyond the month's usage"
        case "credit":
            return f"Credit on {line.corrects_invoice}: {bill.reason or ''}"
    return "Invoice rounding to the currency's minor unit"


def _usage(line: InvoiceLine, amounts: Amounts) -> dict[str, str]:
    """What the list asks for is a price and a cost of its own where a contract asks for another."""
    contracted, listed = line.picos_per_token, line.listed_picos
    row = {"ListCost": _cost(line, amounts, listed)}
    for name, picos in (("ContractedUnitPrice", contracted), ("ListUnitPrice", listed)):
        row[name] = decimal(amounts.price(picos, line.corrects_invoice))
        row[f"PricingCurrency{name}"] = decimal(amount_per_million(picos))
    tier = tier_of(line.price_version)
    meter = f"{line.model}/{line.meter.replace('_', '-')}"
    sku = meter if tier is ServiceTier.STANDARD else f"{meter}/{tier.value}"
    return row | {
        "ConsumedQuantity": decimal(str(line.quantity)),
        "ConsumedUnit": UNIT,
        "PricingCategory": "Standard",
        "PricingQuantity": decimal(format_decimal(line.quantity, _TOKENS_DECIMALS)),
        "PricingUnit": PRICING_UNIT,
        "RegionId": safe_text(line.backend_region),
        "RegionName": safe_text(line.backend_region),
        "SkuId": safe_text(sku),
        "SkuMeter": _SKUS[line.meter].meter,
        "SkuPriceDetails": _price_details(line),
        "SkuPriceId": safe_text(f"{meter}/{_price_point(line.price_version)}"),
        "x_PriceVersion": safe_text(line.price_version),
        "x_Provenance": line.provenance,
    }


def _committed(line: InvoiceLine, row: dict[str, str], amounts: Amounts) -> dict[str, str]:
    """Usage that a commitment covers, what is unused of one, and what one costs. A correction may
    say no quantity of it, and where FOCUS is read strictly says none: it is its effective cost.
    """
    picos, corrects = line.commitment_picos or 0, line.corrects_invoice
    bought = category(line) == "Purchase"
    more = _COMMITMENT_COLUMNS | {
        "CommitmentDiscountId": line.commitment or "",
        "CommitmentDiscountStatus": "" if bought else "Used",
        "PricingCategory": "Standard" if bought else "Committed",
    }
    if not _is_correction(line):
        said = line.amount_picos if bought else picos
        more["CommitmentDiscountQuantity"] = decimal(format_picos(said))
        more["CommitmentDiscountUnit"] = row["PricingCurrency"]
    if line.line_kind == "usage":
        return more | {"BilledCost": billed_text(line, amounts)}
    if bought:
        picos = line.amount_picos
    else:
        more["CommitmentDiscountStatus"] = "Unused"
    cost = decimal(amounts.text(line.line_kind, picos, corrects))
    price = decimal(amounts.text(line.line_kind, abs(picos), corrects))
    of_id = (line.commitment or "").partition("/")[0]
    return more | {
        "ContractedCost": cost,
        "ContractedUnitPrice": price,
        "EffectiveCost": "0.0" if bought else cost,
        "ListCost": cost,
        "ListUnitPrice": price,
        "PricingCurrencyContractedUnitPrice": decimal(format_picos(abs(picos))),
        "PricingCurrencyEffectiveCost": "0.0" if bought else decimal(format_picos(picos)),
        "PricingCurrencyListUnitPrice": decimal(format_picos(abs(picos))),
        "PricingQuantity": "-1.0" if picos < 0 else "1.0",
        "PricingUnit": _COMMITMENTS,
        "SkuId": f"commitment/{of_id}",
        "SkuMeter": _COMMITMENTS,
        "SkuPriceDetails": _json({"x_Commitment": line.commitment or ""}),
        "SkuPriceId": f"commitment/{of_id}/standard",
    }


_TIER: Final = re.compile("([>+])([0-9]+)")
_TIERS: Final = {">": "context", "+": "quantity"}


def _price_point(version: str) -> str:
    """The tiers of a price, without its version: the same over time."""
    tiers = [f"{_TIERS[sign]}-{tokens}" for sign, tokens in _TIER.findall(version)]
    beyond = overage_of(version)
    return "/".join((tier_of(version).value, *tiers, *([f"overage-{beyond}"] if beyond else [])))


def _cost(line: InvoiceLine, amounts: Amounts, picos_per_token: int) -> str:
    at = line.quantity * picos_per_token
    return decimal(amounts.text(line.line_kind, at, line.corrects_invoice))


def _price_details(line: InvoiceLine) -> str:
    sku, tier = _SKUS[line.meter], tier_of(line.price_version)
    return _json(
        {
            "x_CacheLifetime": sku.lifetime or "",
            "x_ModelId": line.model,
            "x_ServiceTier": "" if tier is ServiceTier.STANDARD else tier.value,
            "x_TokenCacheAction": sku.cache_action or "",
            "x_TokenDirection": sku.direction,
        }
    )


def _json(values: dict[str, str]) -> str:
    """An object of what is there; null where nothing is."""
    given = {name: value for name, value in values.items() if value}
    return msgspec.json.encode(given, order="deterministic").decode() if given else ""


def decimal(text: str) -> str:
    """With a point: readers that guess types take a column of whole numbers for integers."""
    return text if "." in text else f"{text}.0"
