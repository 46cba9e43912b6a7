"""Prices by service tier on the books of both databases, with exact amounts."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select

from billing.holds import worst_case
from billing.meters import Meters
from billing.money import format_picos
from billing.prices import PriceBook, RateCard
from billing.rating import rate
from billing.service_tiers import ServiceTier, asked_tier
from billing.usage import DECODER, ENCODER, UsageEvent
from gateway.stores.sql import books, corrections, prices, rate_cards, repricing
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rows import Price
from gateway.stores.sql.tables import usage_rows
from tests.invoicing import ACME, book, drafted, issued, lines_of, october, total
from tests.ledger_events import NOON_US, a_ledger

USAGE = Meters(input=1_000_000, cache_read=400_000, output=200_000)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


@pytest.fixture
def priced(engine: Engine) -> PriceBook:
    """1.25, 0.125 and 10 a million in the standard tier, half of it in batch."""
    amounts = {
        ("standard", "input"): "1.25", ("standard", "cache_read"): "0.125",
        ("standard", "output"): "10", ("batch", "input"): "0.625",
        ("batch", "cache_read"): "0.0625", ("batch", "output"): "5",
    }  # fmt: skip
    with transaction(engine) as connection:
        for (tier, meter), amount in amounts.items():
            price = Price(
                id=f"p_{tier}_{meter}", book="charge", model="chat-default", meter=meter,
                service_tier=tier, amount_per_million=amount, currency="USD", effective_from_us=0,
            )  # fmt: skip
            prices.RECORDS.add(connection, price)
    with reading(engine) as connection:
        return PriceBook(map(prices.version_of, prices.RECORDS.all(connection)))


def card_in(priced: PriceBook, tier: ServiceTier) -> RateCard:
    card = priced.charge_card(ACME, "chat-default", NOON_US, "USD", tier)
    assert card is not None
    return card


def used(priced: PriceBook, request: str, tier: ServiceTier, **told: Any) -> UsageEvent:
    return october(request, usage=USAGE, charge_card=card_in(priced, tier), **told)


def test_a_batch_flag_with_the_wrong_key_is_an_error_and_never_the_standard_price(
    engine: Engine, priced: PriceBook
) -> None:
    wrong = ("batches", "Batch", "processing", "priority-batch", "")
    standard, batch = (card_in(priced, tier) for tier in (ServiceTier.STANDARD, ServiceTier.BATCH))

    assert [asked_tier(name) for name in wrong] == [None] * len(wrong)
    for name in wrong:
        with pytest.raises(ValueError):
            ServiceTier(name)
    assert priced.charge_card(ACME, "chat-default", NOON_US, "USD", ServiceTier.FLEX) is None
    assert format_picos(rate(USAGE, standard)) == "3.3"
    assert format_picos(rate(USAGE, batch)) == "1.65"
    held = worst_case(USAGE.all_input, [batch], "USD").total(USAGE.output)
    assert held == 1_875_000_000  # 1,400,000 tokens at 0.625 and 200,000 at 5, in nanos


def test_what_was_asked_for_and_served_is_on_the_row_and_the_tier_on_the_line(
    engine: Engine, priced: PriceBook
) -> None:
    batch, standard = ServiceTier.BATCH, ServiceTier.STANDARD
    told = {"service_tier": "batch", "tier_asked": "batch", "tier_served": "batch"}
    downgraded = {"service_tier": "standard", "tier_asked": "batch", "tier_served": "default"}
    book(
        engine,
        used(priced, "req_1", batch, **told),
        used(priced, "req_2", standard, **downgraded),
        used(priced, "req_3", standard),
    )

    invoice = issued(engine, drafted(engine))

    lines = [each for each in lines_of(engine, invoice) if each.line_kind == "usage"]
    assert sorted((x.price_version, x.quantity, format_picos(x.amount_picos)) for x in lines) == [
        ("p_batch_cache_read@batch", 400_000, "0.025"),
        ("p_batch_input@batch", 1_000_000, "0.625"),
        ("p_batch_output@batch", 200_000, "1"),
        ("p_standard_cache_read", 800_000, "0.1"),
        ("p_standard_input", 2_000_000, "2.5"),
        ("p_standard_output", 400_000, "4"),
    ]
    assert total(invoice) == "8.25"
    with reading(engine) as connection:
        assert books.check(connection).faults == ()
        found = connection.execute(select(usage_rows).order_by(usage_rows.c.event_id)).mappings()
        rows = list(found)
        cards = rate_cards.get(connection, {row["charge_card"] for row in rows})
        events = [corrections.event_of(row, cards) for row in rows]
    assert [(e.service_tier, e.tier_asked, e.tier_served) for e in events] == [
        ("batch", "batch", "batch"), ("standard", "batch", "default"), (None, None, None),
    ]  # fmt: skip


def test_an_event_of_a_release_that_knew_no_tiers_is_read(priced: PriceBook) -> None:
    event = used(priced, "req_1", ServiceTier.BATCH, service_tier="batch", tier_asked="batch")
    plain = used(priced, "req_1", ServiceTier.STANDARD)
    before = msgspec.msgpack.decode(ENCODER.encode(plain))[:-3]

    assert DECODER.decode(ENCODER.encode(event)) == event
    assert DECODER.decode(msgspec.msgpack.encode(before)) == plain


def test_a_month_is_priced_anew_tier_by_tier(engine: Engine, priced: PriceBook) -> None:
    book(
        engine,
        used(priced, "req_1", ServiceTier.BATCH, service_tier="batch", tier_asked="batch"),
        used(priced, "req_2", ServiceTier.STANDARD),
    )
    dearer = Price(
        id="p_new", book="charge", model="chat-default", meter="output", service_tier="batch",
        amount_per_million="6", currency="USD", effective_from_us=1,
    )  # fmt: skip
    with transaction(engine) as connection:
        prices.RECORDS.add(connection, dearer)

    with transaction(engine) as connection:
        found, _ = repricing.compute(connection, ACME, "2026-10", None, "adm_ada")

    assert (found.requests, found.corrected, found.unpriced) == (2, 1, 0)
    assert (format_picos(found.old_picos), format_picos(found.new_picos)) == ("4.95", "5.15")
