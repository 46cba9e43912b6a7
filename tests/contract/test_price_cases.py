"""The acceptance cases of prices with tiers, with exact amounts, on both databases."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from billing.meters import Meters
from billing.money import format_picos
from billing.prices import PriceBook, card_for
from gateway.stores.sql import prices
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rows import ContextPrice, Price
from tests.invoicing import ACME, book, drafted, lines_of, october
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


def test_the_edge_of_a_context_tier_is_a_cliff_for_the_whole_request(engine: Engine) -> None:
    tier = ContextPrice(above_tokens=200_000, amount_per_million="2.50")
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
