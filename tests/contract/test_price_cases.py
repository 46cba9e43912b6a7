"""The acceptance cases of prices with tiers, with exact amounts, on both databases."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from billing.discounts import Discount as BookedDiscount
from billing.focus import Bill
from billing.focus import rows as focus_rows
from billing.meters import Meters
from billing.money import format_picos
from billing.prices import PriceBook, RateCard, card_for, sealed_card
from billing.usage import UsageEvent
from gateway.stores.sql import books, discounts, explained, prices, teams
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rows import Discount, Price, QuantityTiers, Team, TierPrice
from tests.invoicing import (
    ACME,
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
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def priced(engine: Engine, *given: Price) -> PriceBook:
    with transaction(engine) as connection:
        for price in given:
            prices.RECORDS.add(connection, price)
    with reading(engine) as connection:
        return PriceBook(map(prices.version_of, prices.RECORDS.all(connection)))


def million(tokens: str) -> int:
    whole, _, tenths = tokens.partition(".")
    return int(whole) * 1_000_000 + int(tenths) * 100_000


def by_quantity(mode: str) -> Price:
    """3.00 to 10 million tokens of a month, then 2.00."""
    tier = TierPrice(above_tokens=10_000_000, amount_per_million="2.00")
    return Price(
        id="price_1", book="charge", model="chat-default", meter="input", currency="USD",
        amount_per_million="3.00", effective_from_us=0,
        quantity_tiers=QuantityTiers(mode=mode, tiers=(tier,)),
    )  # fmt: skip


def calls(card: RateCard, *tokens: str, since: int = 0) -> list[UsageEvent]:
    return [
        october(f"req_{n}", charge_card=card, usage=Meters(input=million(each)))
        for n, each in enumerate(tokens, start=since)
    ]


def card_of(engine: Engine, mode: str) -> RateCard:
    card = priced(engine, by_quantity(mode)).charge_card(ACME, "chat-default", NOON_US)
    assert card is not None
    return card


def told(engine: Engine, invoice: Invoice) -> list[tuple[str, int, str]]:
    return [
        (line.price_version, line.quantity, format_picos(line.amount_picos))
        for line in lines_of(engine, invoice)
        if line.line_kind == "usage"
    ]


ALL_EXPLAINED = (True, True, ())


def explained_whole(engine: Engine, invoice: Invoice) -> tuple[bool, bool, tuple[str, ...]]:
    """Whether every line of usage adds up, and the invoice as a whole; and what the books say."""
    with reading(engine) as connection:
        each = all(
            explained.behind(connection, invoice, line).adds_up
            for line in lines_of(engine, invoice)
        )
        adds_up = explained.behind(connection, invoice, None).adds_up
        return each, adds_up, books.check(connection).faults


def made_of(engine: Engine, invoice: Invoice, version: str | None) -> tuple[object, ...]:
    """What was booked, what changed it and why, and what is billed, of a line or of the whole."""
    with reading(engine) as connection:
        line = None
        if version is not None:
            (line,) = (x for x in lines_of(engine, invoice) if x.price_version == version)
        found = explained.behind(connection, invoice, line)
    assert found.adds_up
    changes = {each.cause: format_picos(each.picos) for each in found.changes}
    return found.quantity, format_picos(found.amount_picos), changes, found.billed_picos


def test_an_explanation_says_what_the_tiers_took_off_and_what_other_steps_have(
    engine: Engine,
) -> None:
    agree(engine, minimum="31.00")
    book(engine, *calls(card_of(engine, "graduated"), "9.9", "0.3"))
    invoice = issued(engine, drafted(engine))

    assert made_of(engine, invoice, "price_1+10000000") == (
        10_200_000, "30.6", {"other_steps": "-30", "quantity_tiers": "-0.2"}, 4 * 10**11,
    )  # fmt: skip
    assert made_of(engine, invoice, "price_1") == (
        10_200_000, "30.6", {"other_steps": "-0.6"}, 30 * 10**12,
    )  # fmt: skip
    assert made_of(engine, invoice, None) == (
        10_200_000, "30.6", {"quantity_tiers": "-0.2", "minimum": "0.6"}, 31 * 10**12,
    )  # fmt: skip


@pytest.mark.parametrize("order", [("9.9", "0.3"), ("0.3", "9.9"), ("0.3", "4.9", "5.0")])
def test_case_06_a_graduated_month_comes_to_the_same_in_any_order(
    engine: Engine, order: tuple[str, ...]
) -> None:
    book(engine, *calls(card_of(engine, "graduated"), *order))

    invoice = issued(engine, drafted(engine))

    assert told(engine, invoice) == [
        ("price_1", 10_000_000, "30"), ("price_1+10000000", 200_000, "0.4"),
    ]  # fmt: skip
    assert total(invoice) == "30.40"
    assert explained_whole(engine, invoice) == ALL_EXPLAINED


def test_case_06_the_call_that_crosses_a_step_comes_to_070_in_two_focus_rows(
    engine: Engine,
) -> None:
    """0.1 million at 3.00 and 0.2 at 2.00."""
    card = card_of(engine, "graduated")
    book(engine, *calls(card, "9.9"))
    before = drafted(engine)
    book(engine, *calls(card, "0.3", since=1))
    after = issued(engine, drafted(engine))

    head, *table = focus_rows(lines_of(engine, after), as_bill(after), "1.2")
    shown = ("PricingQuantity", "ContractedUnitPrice", "BilledCost", "ChargeCategory")

    assert (total(before), total(after)) == ("29.70", "30.40")
    assert after.total_minor - before.total_minor == 70
    assert sorted(tuple(row[head.index(name)] for name in shown) for row in table) == [
        ("0.2", "2.0", "0.4", "Usage"),
        ("10.0", "3.0", "30.0", "Usage"),
    ]
    skus = [(row[head.index("SkuId")], row[head.index("SkuPriceId")]) for row in table]
    assert len({sku for sku, _ in skus}) == 1
    assert len({price for _, price in skus}) == 2, "the same SKU at two price points"


def as_bill(invoice: Invoice) -> Bill:
    return Bill(
        number=invoice.number, tenant_id=ACME, tenant="Acme", issuer="Meterhouse",
        currency=invoice.currency, period_start_us=invoice.period_start_us,
        period_end_us=invoice.period_end_us,
    )  # fmt: skip


def test_case_06_by_volume_the_draft_falls_with_the_next_call(engine: Engine) -> None:
    card = card_of(engine, "volume")
    book(engine, *calls(card, "9.9"))
    before = drafted(engine)
    book(engine, *calls(card, "0.3", since=1))
    after = drafted(engine)

    assert (total(before), total(after)) == ("29.70", "20.40")
    assert told(engine, after) == [("price_1+10000000", 10_200_000, "20.4")]


def test_case_06_by_volume_what_was_billed_is_corrected_when_more_of_the_month_comes(
    engine: Engine,
) -> None:
    card = card_of(engine, "volume")
    book(engine, *calls(card, "9.9"))
    first = issued(engine, drafted(engine))
    book(engine, *calls(card, "0.3", since=1))
    second = drafted(engine, "2026-11")

    assert told(engine, second) == [
        ("price_1", -9_900_000, "-29.7"), ("price_1+10000000", 10_200_000, "20.4"),
    ]  # fmt: skip
    assert {line.corrects_invoice for line in lines_of(engine, second)} == {first.number}
    assert (total(first), total(second)) == ("29.70", "-9.30")
    assert is_intact(engine, first) is True
    assert explained_whole(engine, second) == ALL_EXPLAINED


def test_case_06_teams_share_every_step_of_a_month(engine: Engine) -> None:
    card = card_of(engine, "graduated")
    with transaction(engine) as connection:
        for name in "ab":
            team = Team(id=f"team_{name}", tenant_id=ACME, name=name, cost_center=name)
            teams.RECORDS.add(connection, team)
    first, second = calls(card, "10.0", "10.0")
    book(engine, replace(first, team_path=("team_a",)), replace(second, team_path=("team_b",)))

    lines = lines_of(engine, drafted(engine))

    assert [(line.cost_center, line.quantity) for line in lines] == [
        ("a", 5_000_000), ("a", 5_000_000), ("b", 5_000_000), ("b", 5_000_000),
    ]  # fmt: skip
    assert sum(line.amount_picos for line in lines) == 50 * 10**12


def test_case_15_a_minimum_is_measured_against_what_the_tiers_make_of_a_month(
    engine: Engine,
) -> None:
    agree(engine, minimum="31.00")
    book(engine, *calls(card_of(engine, "graduated"), "10.2"))

    invoice = issued(engine, drafted(engine))

    (shortfall,) = [x for x in lines_of(engine, invoice) if x.line_kind == "minimum"]
    assert format_picos(shortfall.amount_picos) == "0.6"
    assert total(invoice) == "31.00"


def test_the_edge_of_a_context_tier_is_a_cliff_for_the_whole_request(engine: Engine) -> None:
    tier = TierPrice(above_tokens=200_000, amount_per_million="2.50")
    known = priced(
        engine,
        Price(
            id="price_1", book="charge", model="chat-default", meter="input",
            amount_per_million="1.25", context_tiers=(tier,), currency="USD", effective_from_us=0,
        ),
    )  # fmt: skip
    bands = known.charge_bands(ACME, "chat-default", NOON_US)

    for tokens in (200_000, 200_001):
        card = card_for(bands, tokens)
        book(engine, october(f"req_{tokens}", charge_card=card, usage=Meters(input=tokens)))

    lines = lines_of(engine, drafted(engine))
    assert [
        (line.price_version, line.quantity, format_picos(line.amount_picos))
        for line in lines
        if line.line_kind == "usage"
    ] == [("price_1", 200_000, "0.25"), ("price_1>200000", 200_001, "0.5000025")]


def test_a_discount_is_booked_billed_and_named(engine: Engine) -> None:
    """12.5 % off 3.00: 2.625 a million."""
    with transaction(engine) as connection:
        discounts.RECORDS.add(
            connection,
            Discount(id="discount_1", tenant_id=ACME, percent="12.5", effective_from_us=0),
        )
    listed = by_quantity("graduated")
    with reading(engine) as connection:
        off = map(discounts.discount_of, discounts.RECORDS.all(connection))
        known = PriceBook([prices.version_of(listed)], off)
    card = known.charge_card(ACME, "chat-default", NOON_US)
    assert card is not None
    book(engine, *calls(card, "10.2"))

    invoice = issued(engine, drafted(engine))

    assert told(engine, invoice) == [
        ("price_1-12.5%", 10_000_000, "26.25"), ("price_1-12.5%+10000000", 200_000, "0.35"),
    ]  # fmt: skip
    assert explained_whole(engine, invoice) == ALL_EXPLAINED

    lines = [line for line in lines_of(engine, invoice) if line.line_kind == "usage"]
    assert [line.listed_picos for line in lines] == [3_000_000, 2_000_000]
    with reading(engine) as connection:
        billed = [explained.behind(connection, invoice, line).amount_picos for line in lines]
    assert billed == [10_200_000 * 2_625_000] * 2


def test_what_a_discount_booked_before_cards_told_the_list_counts_with_what_came_since(
    engine: Engine,
) -> None:
    listed = by_quantity("graduated")
    off = BookedDiscount("discount_1", ACME, 125_000, 0)
    known = PriceBook([*map(prices.version_of, [listed])], [off])
    card = known.charge_card(ACME, "chat-default", NOON_US)
    assert card is not None
    older = sealed_card("USD", [replace(rate, list_schedule=None) for rate in card.rates])
    book(engine, *calls(older, "9.9"), *calls(card, "0.3", since=1))

    invoice = issued(engine, drafted(engine))

    assert [(version, quantity) for version, quantity, _ in told(engine, invoice)] == [
        ("price_1-12.5%", 10_000_000), ("price_1-12.5%+10000000", 200_000),
    ]  # fmt: skip
    assert explained_whole(engine, invoice) == ALL_EXPLAINED
