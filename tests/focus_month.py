"""Months that have every kind of row which we export: of what is bought in advance and used, late,
beyond, expired and rolled over; of list prices, contracts, discounts, tiers and markups; minimums,
credit notes, rounding.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from sqlalchemy import Engine

from billing import focus
from billing.csv_files import csv_text
from billing.discounts import Discount
from billing.focus import Bill
from billing.invoices import InvoiceLine
from billing.markups import marked_up
from billing.meters import Meter, Meters
from billing.money import format_minor
from billing.prices import ContextTier, PriceBook, PriceVersion, RateCard
from billing.quantity import Schedule, Step
from billing.service_tiers import ServiceTier
from gateway.stores.sql import commitments, exchange_rates
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.exchange_rates import ExchangeRate
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rows import Commitment
from tests.invoicing import ACME, BHARAT, agree, book, credited, drafted, issued, lines_of, october

MONTHS: Final = ("2026-05", "2026-06", "2026-07", "2026-08", "2026-09", "2026-10")
_GRADUATED: Final = Schedule("graduated", (Step(0, 3_000_000), Step(1_000_000, 2_000_000)))


class Exported(msgspec.Struct, frozen=True):
    """A file of FOCUS 1.2, what each of its invoices comes to, and the lines that it is of."""

    file: bytes
    totals: dict[str, Decimal]
    lines: list[InvoiceLine]


def every_kind_of_row(engine: Engine, currency: str | None = None) -> Exported:
    """Of two tenants. `currency`: that of the invoices, where it is not that of their prices."""
    for tenant in (ACME, BHARAT):
        agree(engine, tenant, currency=currency, minimum="50" if tenant == BHARAT else None)
    if currency is not None:
        _rates(engine, currency)
    _commitments(engine)
    made = [invoice for month in MONTHS for invoice in _month(engine, month)]
    first = next(each for each in made if each.tenant_id == BHARAT)
    usage = next(each for each in lines_of(engine, first) if each.line_kind == "usage")
    made += [credited(engine, first, 7), credited(engine, first, 3, usage.line_id)]
    return _exported(engine, made)


def _rates(engine: Engine, currency: str) -> None:
    with transaction(engine) as connection:
        for number, month in enumerate(MONTHS):
            entered = ExchangeRate(
                id=f"rate_{month}", base="USD", quote=currency, rate=f"0.91{number}7",
                day=f"{month}-28", source="ECB",
            )  # fmt: skip
            exchange_rates.RECORDS.add(connection, entered)


def _commitments(engine: Engine) -> None:
    """A month of which all that is unused rolls over, three prepaid ones with overage at 80
    percent, and two of which half of it does.
    """
    deals: tuple[dict[str, Any], ...] = (
        {"amount": "60", "first_day": "2026-05-01", "rollover_percent": "100"},
        {"amount": "99", "first_day": "2026-06-01", "prepaid": True, "overage_percent": "80",
         "rollover_percent": "100"},
        {"amount": "60", "first_day": "2026-09-01", "last_day": "2026-10-31",
         "rollover_percent": "50"},
    )  # fmt: skip
    with transaction(engine) as connection:
        for number, deal in enumerate(deals):
            row = Commitment(id=f"cmt_{number}", tenant_id=ACME, term="month", **deal)
            commitments.RECORDS.add(connection, row)


def _month(engine: Engine, month: str) -> Iterable[Invoice]:
    """Acme uses more than it committed to in June, and less in other months. Some of every month
    turns up late; and some of June and July is taken back.
    """
    millions = {"2026-06": 60, "2026-10": 50}.get(month, 3)
    _use(engine, month, input=millions * 1_000_000, output=7)
    _use(engine, month, BHARAT, a_card(), input=834_567, cache_read=400_003, output=87_655)
    _use(engine, month, BHARAT, a_card(contract=True), input=1_500_000)
    _use(engine, month, BHARAT, a_card(percent_e4=125_000), input=1_000_001)
    _use(engine, month, BHARAT, a_card(schedule=_GRADUATED), input=1_200_000)
    by_prompt = (ContextTier(200_000, 6_000_000),)
    _use(engine, month, BHARAT, a_card(context_tiers=by_prompt, above=200_000), input=200_001)
    _use(engine, month, BHARAT, a_card(tier=ServiceTier.PRIORITY), input=999_999)
    _use(engine, month, BHARAT, marked_up(a_card(), "1.25"), input=999_998)
    _use(engine, month, ACME, marked_up(a_card(), "1.5"), input=999_997)
    made = [issued(engine, drafted(engine, month, tenant)) for tenant in (ACME, BHARAT)]
    _use(engine, month, name="late", input=1_000_000)
    _use(engine, month, BHARAT, a_card(), name="late", input=10_000)
    if month in {"2026-07", "2026-08"}:
        before = MONTHS[MONTHS.index(month) - 1]
        _use(engine, before, name="back", input=-2_000_000)
    return made


def _use(
    engine: Engine,
    month: str,
    tenant: str = ACME,
    card: RateCard | None = None,
    name: str = "",
    **tokens: int,
) -> None:
    used = Meters(**tokens)
    of = {"tenant_id": tenant, "usage": used, "reported": used}
    of |= {} if tenant == ACME else {"team_path": ("team_labs",), "key_id": "key_lab"}
    of |= {} if card is None else {"charge_card": card, "model": f"chat-{card.id[-6:]}"}
    number = "-".join(map(str, msgspec.structs.astuple(used)))
    book(engine, october(f"req_{tenant}_{month}_{number}{name}", f"{month}-14T12:00:00Z", **of))


def a_card(
    *,
    contract: bool = False,
    percent_e4: int = 0,
    above: int = 0,
    tier: ServiceTier = ServiceTier.STANDARD,
    **changes: Any,
) -> RateCard:
    listed = PriceVersion(
        id="p_in", book="charge", model="chat", tenant_id=None, backend_id=None,
        upstream_model=None, meter=Meter.INPUT, picos_per_token=3_000_000, currency="USD",
        effective_from_us=0, service_tier=tier,
    )  # fmt: skip
    replace = msgspec.structs.replace
    versions = [
        replace(listed, **changes),
        replace(listed, id="p_read", meter=Meter.CACHE_READ, picos_per_token=0),
        replace(listed, id="p_out", meter=Meter.OUTPUT, picos_per_token=15_000_001),
    ]
    if contract:
        versions.append(replace(listed, id="p_own", tenant_id="x", picos_per_token=2_400_000))
    off = Discount(id="d_1", tenant_id="x", percent_e4=percent_e4, effective_from_us=0)
    discounts = [off] if percent_e4 else []
    cards = PriceBook(versions, discounts=discounts).charge_bands("x", "chat", 1, tier=tier)
    return next(each.card for each in cards if each.above_tokens == above)


def _exported(engine: Engine, made: Sequence[Invoice]) -> Exported:
    table: list[tuple[str, ...]] = []
    lines: list[InvoiceLine] = []
    for invoice in made:
        bill = Bill(
            number=invoice.number, tenant_id=invoice.tenant_id, tenant="=Acme & Co", issuer="House",
            currency=invoice.currency, period_start_us=invoice.period_start_us,
            period_end_us=invoice.period_end_us, exchange=invoice.exchanged, reason=invoice.reason,
        )  # fmt: skip
        mine = lines_of(engine, invoice)
        rows = list(focus.rows(mine, bill, "1.2"))
        table += rows[1:] if table else rows
        lines += mine
    totals = {
        str(each.number): Decimal(format_minor(each.total_minor, each.currency)) for each in made
    }
    return Exported("".join(csv_text(table)).encode(), totals, lines)
