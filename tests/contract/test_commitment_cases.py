"""What tenants committed to, on their invoices: exact amounts."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from billing import drawdown, focus
from billing.csv_files import csv_text
from billing.focus import Bill
from billing.markups import marked_up
from billing.meters import Meters
from billing.money import format_picos
from billing.prices import PriceBook, RateCard
from gateway.stores.sql import (
    books,
    commitments,
    exchange_rates,
    explained,
    issuing,
    prices,
    repricing,
)
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.exchange_rates import ExchangeRate
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rows import Commitment, Price, QuantityTiers, TierPrice
from gateway.stores.sql.tables import postings
from tests.focus_rules import faults
from tests.invoicing import (
    ACME,
    CARD,
    agree,
    book,
    drafted,
    is_intact,
    issued,
    lines_of,
    october,
    total,
)
from tests.ledger_events import NOON_US, a_ledger


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    with a_ledger(sqlite_url) as engine:
        yield engine


@pytest.fixture
def either(database_url: str) -> Iterator[Engine]:
    """On SQLite and on PostgreSQL: where sums are added up in the database."""
    with a_ledger(database_url) as engine:
        yield engine


def commit(engine: Engine, amount: str, name: str = "cmt_1", **given: Any) -> None:
    fields = {"term": "month", "first_day": "2026-07-01"} | given
    with transaction(engine) as connection:
        row = Commitment(id=name, tenant_id=ACME, amount=amount, **fields)
        commitments.RECORDS.add(connection, row)


def use(engine: Engine, month: str, dollars: int, name: str = "") -> None:
    """Of input at 3.00 a million: three dollars are a million tokens."""
    assert dollars % 3 == 0
    event = october(
        f"req_{month}{name}", f"{month}-14T12:00:00Z", usage=Meters(input=dollars // 3 * 1_000_000)
    )
    book(engine, event)


def bill(engine: Engine, *months: str) -> list[Invoice]:
    return [issued(engine, drafted(engine, month)) for month in months]


def told(engine: Engine, invoice: Invoice) -> dict[str, str]:
    """By kind, what the lines come to."""
    sums: dict[str, int] = {}
    for line in lines_of(engine, invoice):
        sums[line.line_kind] = sums.get(line.line_kind, 0) + line.amount_picos
    return {kind: format_picos(picos) for kind, picos in sums.items()}


def unused(engine: Engine, invoice: Invoice) -> dict[str, str]:
    """By the day on which terms begin, what is said to have expired of them."""
    return {
        str(line.commitment).partition("/")[2]: format_picos(line.commitment_picos or 0)
        for line in lines_of(engine, invoice)
        if line.line_kind in {"true_up", "unused"}
    }


def prepaid(engine: Engine) -> str:
    """What the ledger says was paid for usage to come: what we owe."""
    with reading(engine) as connection:
        found = connection.scalar(
            select(func.sum(postings.c.amount_picos)).where(postings.c.account.like("prepaid/%"))
        )
    return format_picos(-int(found or 0))


def holds_together(engine: Engine, *made: Invoice) -> None:
    """Nothing is wrong with the books, and every invoice and line of it is explained."""
    with reading(engine) as connection:
        assert books.check(connection).faults == ()
        for invoice in made:
            assert explained.behind(connection, invoice, None).adds_up
            for line in lines_of(engine, invoice):
                assert explained.behind(connection, invoice, line).adds_up, line
    assert all(is_intact(engine, invoice) for invoice in made)


def test_a_prepaid_month_is_charged_at_once_and_usage_beyond_it_as_it_comes(
    engine: Engine,
) -> None:
    commit(engine, "99", prepaid=True)
    use(engine, "2026-07", 120)

    (july,) = bill(engine, "2026-07")

    assert told(engine, july) == {
        "usage": "99", "overage": "21", "commitment": "99", "drawdown": "-99",
    }  # fmt: skip
    assert (total(july), prepaid(engine)) == ("120.00", "0")
    holds_together(engine, july)


def test_a_commitment_pays_whole_tokens_and_what_is_left_of_it_expires(engine: Engine) -> None:
    commit(engine, "100", prepaid=True)
    use(engine, "2026-07", 120)

    (july,) = bill(engine, "2026-07")

    assert told(engine, july) == {
        "usage": "99.999999", "overage": "20.000001", "commitment": "100",
        "drawdown": "-99.999999", "unused": "0", "rounding": "-0.000001",
    }  # fmt: skip
    assert unused(engine, july) == {"2026-07-01": "0.000001"}
    holds_together(engine, july)


def test_a_quarter_from_the_middle_of_a_month_is_trued_up_at_its_end(engine: Engine) -> None:
    """300 a quarter from July 16: 77 of 92 days."""
    agree(engine, minimum="500")
    commit(engine, "300", term="quarter", first_day="2026-07-16")
    use(engine, "2026-07", 120)

    july, august, september = bill(engine, "2026-07", "2026-08", "2026-09")

    assert told(engine, july) == {"usage": "120"}, "no minimum beside a commitment"
    assert told(engine, august) == {}
    assert told(engine, september) == {"true_up": "131.09"}
    assert unused(engine, september) == {"2026-07-16": "131.09"}
    assert prepaid(engine) == "0"
    holds_together(engine, july, august, september)


@pytest.mark.parametrize("in_advance", [True, False])
def test_the_rest_rolls_over_for_one_term_and_is_used_first(
    either: Engine, in_advance: bool
) -> None:
    commit(either, "100", rollover_percent="50", prepaid=in_advance)
    use(either, "2026-07", 30)
    use(either, "2026-08", 120)
    use(either, "2026-09", 12)

    made = bill(either, "2026-07", "2026-08", "2026-09")

    assert [total(each) for each in made] == ["100.00", "100.00", "100.00"]
    assert [unused(either, each) for each in made] == [
        {"2026-07-01": "20"},
        # 50 of July and 70 of August were used; the rest of July's was all used.
        {"2026-07-01": "0.000002"} | ({} if in_advance else {"2026-08-01": "0"}),
        {"2026-08-01": "17.999998", "2026-09-01": "50"},
    ]
    assert prepaid(either) == "50", "what rolls over to October"
    holds_together(either, *made)


def test_what_comes_late_is_paid_by_what_expired(engine: Engine) -> None:
    commit(engine, "99", last_day="2026-07-31")
    use(engine, "2026-07", 30)
    (july,) = bill(engine, "2026-07")
    assert total(july) == "99.00"

    use(engine, "2026-07", 9, "late")
    use(engine, "2026-08", 3)
    (august,) = bill(engine, "2026-08")

    assert told(engine, august) == {"usage": "12", "drawdown": "-9", "unused": "0"}
    assert unused(engine, august) == {"2026-07-01": "-9"}
    assert total(august) == "3.00"
    late = {line.corrects_invoice for line in lines_of(engine, august) if line.commitment}
    assert late == {july.number}
    holds_together(engine, july, august)


def test_usage_beyond_a_commitment_may_have_another_price(engine: Engine) -> None:
    commit(engine, "60", prepaid=True, overage_percent="80")
    use(engine, "2026-07", 90)

    (july,) = bill(engine, "2026-07")

    (beyond,) = (line for line in lines_of(engine, july) if line.line_kind == "overage")
    assert (beyond.price_version, beyond.picos_per_token) == ("p_in*80%", 2_400_000)
    assert (beyond.quantity, beyond.listed_picos) == (10_000_000, 3_000_000)
    assert total(july) == "84.00"
    with reading(engine) as connection:
        whole = explained.behind(connection, july, None)
    changes = {each.cause: format_picos(each.picos) for each in whole.changes}
    assert changes == {"overage": "-6", "commitment": "60", "drawdown": "-60"}
    holds_together(engine, july)


@pytest.mark.parametrize("overage", ["100", "80"])
def test_a_price_with_a_markup_keeps_it_beyond_a_commitment(engine: Engine, overage: str) -> None:
    """3.00 a million marked up to 3.75."""
    commit(engine, "75", prepaid=True, overage_percent=overage)
    at = {"charge_card": marked_up(CARD, "1.25"), "usage": Meters(input=28_000_000)}
    book(engine, october("req_1", "2026-07-14T12:00:00Z", **at))

    (july,) = bill(engine, "2026-07")

    (beyond,) = (line for line in lines_of(engine, july) if line.line_kind == "overage")
    assert drawdown.booked(beyond).price_version == "p_in*1.25"
    assert drawdown.overage_of(beyond.price_version) == (None if overage == "100" else overage)
    assert drawdown.overage_of("p_in*1.25") is None
    holds_together(engine, july)


def by_quantity(engine: Engine) -> RateCard:
    tier = TierPrice(above_tokens=10_000_000, amount_per_million="2.00")
    price = Price(
        id="price_1", book="charge", model="chat-default", meter="input", currency="USD",
        amount_per_million="3.00", effective_from_us=0,
        quantity_tiers=QuantityTiers(mode="graduated", tiers=(tier,)),
    )  # fmt: skip
    with transaction(engine) as connection:
        prices.RECORDS.add(connection, price)
    with reading(engine) as connection:
        book_of = PriceBook(map(prices.version_of, prices.RECORDS.all(connection)))
    card = book_of.charge_card(ACME, "chat-default", NOON_US)
    assert card is not None
    return card


def test_prices_by_quantity_are_decided_first_and_then_draw_on_it(engine: Engine) -> None:
    commit(engine, "25", prepaid=True)
    at = {"charge_card": by_quantity(engine), "usage": Meters(input=20_000_000)}
    book(engine, october("req_1", "2026-07-14T12:00:00Z", **at))

    (july,) = bill(engine, "2026-07")

    assert told(engine, july)["overage"] == "25"
    assert total(july) == "50.00"
    holds_together(engine, july)


def test_an_invoice_that_is_voided_frees_what_it_used(engine: Engine) -> None:
    commit(engine, "99", prepaid=True)
    use(engine, "2026-07", 120)
    (july,) = bill(engine, "2026-07")
    with transaction(engine) as connection:
        issuing.void(connection, issuing.locked(connection, july), "typo")

    (again,) = bill(engine, "2026-07")

    assert (total(again), told(engine, again)) == ("120.00", told(engine, july))
    assert prepaid(engine) == "0"


@pytest.mark.parametrize("in_advance", [True, False])
def test_a_term_that_is_billed_anew_corrects_what_the_next_said_of_its_rest(
    engine: Engine, in_advance: bool
) -> None:
    """All of July's rest rolls over, and August's invoice said that 60 of it expired."""
    commit(engine, "60", last_day="2026-07-31", rollover_percent="100", prepaid=in_advance)
    commit(engine, "60", "cmt_2", first_day="2026-08-01")
    july, august = bill(engine, "2026-07", "2026-08")
    with transaction(engine) as connection:
        issuing.void(connection, issuing.locked(connection, july), "typo")
    use(engine, "2026-07", 9)

    (again,) = bill(engine, "2026-07")

    (said,) = (line for line in lines_of(engine, again) if line.line_kind == "unused")
    assert unused(engine, august)["2026-07-01"] == "60"
    assert (said.amount_picos, format_picos(said.commitment_picos or 0)) == (0, "-9")
    assert (total(again), prepaid(engine)) == ("60.00", "0")
    assert written(engine, again) == 60
    holds_together(engine, august, again)


def test_a_later_commitment_takes_the_place_of_the_one_before(engine: Engine) -> None:
    commit(engine, "30", prepaid=True)
    commit(engine, "60", "cmt_2", first_day="2026-08-01")
    commit(engine, "0", "cmt_3", first_day="2026-09-01")
    for month in ("2026-07", "2026-08", "2026-09"):
        use(engine, month, 45)

    made = bill(engine, "2026-07", "2026-08", "2026-09")

    assert [told(engine, each) for each in made] == [
        {"usage": "30", "overage": "15", "commitment": "30", "drawdown": "-30"},
        {"usage": "45", "true_up": "15"},
        {"usage": "45"},
    ]
    holds_together(engine, *made)


def test_an_invoice_in_another_currency_takes_off_what_it_adds(engine: Engine) -> None:
    agree(engine, currency="EUR")
    with transaction(engine) as connection:
        for rate, day in (("0.9", "2026-07-31"), ("0.8", "2026-08-31")):
            entered = ExchangeRate(
                id=f"rate_{day}", base="USD", quote="EUR", rate=rate, day=day, source="ECB"
            )
            exchange_rates.RECORDS.add(connection, entered)
    commit(engine, "99", term="quarter", prepaid=True, overage_percent="50")
    use(engine, "2026-07", 60)
    (july,) = bill(engine, "2026-07")
    use(engine, "2026-07", 9, "late")
    use(engine, "2026-08", 60)

    (august,) = bill(engine, "2026-08")

    # 30 are beyond it, at half; what of that is July's comes at July's rate.
    assert (total(july), total(august)) == ("89.10", "12.20")
    for invoice in (july, august):
        assert written(engine, invoice) == Decimal(total(invoice))
    holds_together(engine, july, august)


def written(engine: Engine, invoice: Invoice) -> Decimal:
    """What FOCUS says was billed, and that it breaks no rule."""
    of = Bill(
        number=invoice.number, tenant_id=ACME, tenant="Acme", issuer="Meterhouse",
        currency=invoice.currency, period_start_us=invoice.period_start_us,
        period_end_us=invoice.period_end_us, exchange=invoice.exchanged,
    )  # fmt: skip
    head, *rows = focus.rows(lines_of(engine, invoice), of, "1.2")
    billed = sum((Decimal(row[head.index("BilledCost")]) for row in rows), Decimal(0))
    file = "".join(csv_text([head, *rows])).encode()
    assert faults(file, {str(invoice.number): billed}) == []
    return billed


def test_a_month_priced_anew_draws_on_it_anew(engine: Engine) -> None:
    commit(engine, "30", prepaid=True)
    commit(engine, "0", "cmt_2", first_day="2026-08-01")
    use(engine, "2026-07", 120)
    (july,) = bill(engine, "2026-07")
    less = Price(
        id="p_less", book="charge", model="chat-default", meter="input", currency="USD",
        amount_per_million="2", effective_from_us=0,
    )  # fmt: skip
    with transaction(engine) as connection:
        prices.RECORDS.add(connection, less)
        row, lines = repricing.compute(connection, ACME, "2026-07", None, "adm_ada")
        repricing.add(connection, row, lines)
        repricing.approve(connection, repricing.locked(connection, row), "adm_grace")

    (august,) = bill(engine, "2026-08")

    assert (total(july), format_picos(row.new_picos - row.old_picos)) == ("120.00", "-40")
    assert told(engine, august) == {"usage": "0", "overage": "-40"}
    assert (total(august), prepaid(engine)) == ("-40.00", "0")
    holds_together(engine, july, august)
