"""What nobody priced is known before the first request."""

from typing import Any

import pytest

from gateway.stores.sql import models
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import Backend, Configuration, Model, Price, Target, Tenant
from gateway.unpriced import tell, unpriced
from tests.ledger_events import NOON_US, a_ledger

US = Tenant(id="t_us", name="us", currency="USD", timezone="UTC")
EU = Tenant(id="t_eu", name="eu", currency="EUR", timezone="UTC")
BACKEND = Backend(
    id="b", name="rack", dialect="openai", base_url="http://127.0.0.1:9/v1", region="eu"
)


def price(meter: str, **changes: Any) -> Price:
    fields: dict[str, Any] = {
        "id": f"price_{meter}_{len(changes)}",
        "book": "charge",
        "model": "chat",
        "meter": meter,
        "amount_per_million": "1",
        "currency": "USD",
        "effective_from_us": 10,
    }
    return Price(**(fields | changes))


def house(*prices: Price, **changes: Any) -> Configuration:
    fields: dict[str, Any] = {
        "id": "m", "name": "chat", "targets": (Target(backend_id="b", upstream_model="smol"),)
    }  # fmt: skip
    model = Model(**(fields | changes))
    return Configuration(
        revision=1, tenants=(US, EU), backends=(BACKEND,), models=(model,), prices=prices
    )


def said(config: Configuration, at_us: int = 20) -> list[str]:
    return [route.words() for route in unpriced(config, at_us)]


def test_a_route_without_a_price_is_named_by_currency() -> None:
    priced = house(price("input"), price("output"))

    assert said(priced) == [
        "model chat has no input price in EUR at backend rack (smol): 1 tenant cannot use it there"
    ]
    assert len(said(priced, at_us=9)) == 2
    assert len(said(house())) == 2


def test_a_cost_is_enough_and_output_is_needed_unless_nothing_is_put_out() -> None:
    cost = {"book": "cost", "model": None, "backend_id": "b", "currency": "EUR"}
    in_dollars = (price("input"), price("output"))

    assert said(house(*in_dollars, price("input", **cost), price("output", **cost))) == []
    (lacking,) = said(house(*in_dollars, price("input", **cost)))
    assert "no output price in EUR" in lacking
    assert said(house(price("input"), price("input", **cost), capabilities=("embeddings",))) == []


def test_a_tier_that_somebody_began_to_price_is_named() -> None:
    batch = {"service_tier": "batch"}
    listed = [price(meter) for meter in ("input", "output")]
    in_euros = [price(meter, currency="EUR") for meter in ("input", "output")]

    found = said(house(*listed, *in_euros, price("input", **batch)))

    where = "at backend rack (smol): 1 tenant cannot use it there"
    assert found == [
        f"model chat has no output price for service tier batch in USD {where}",
        f"model chat has no input price for service tier batch in EUR {where}",
    ]
    cost = price("input", **batch, book="cost", model=None, backend_id="b", upstream_model="smol")
    assert said(house(*listed, *in_euros, cost)) == []


def test_a_contract_prices_its_own_tenant_only() -> None:
    contract = {"tenant_id": "t_eu", "currency": "EUR"}
    found = said(house(price("input", **contract), price("output", **contract)))

    assert len(found) == 1
    assert "in USD" in found[0]


def test_a_start_tells_of_them_and_of_no_more_than_can_be_read(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with a_ledger(sqlite_url) as engine:
        with transaction(engine) as connection:
            for number in range(22):
                target = Target(backend_id="backend_eu", upstream_model="smol")
                model = Model(id=f"m{number}", name=f"chat-{number:02}", targets=(target,))
                models.RECORDS.add(connection, model)

        tell(engine, NOON_US)

    told = [each.getMessage() for each in caplog.records if each.name == "gateway.unpriced"]
    assert len(told) == 21
    assert "model chat-00 has no input price in USD at backend eu (smol): 2 tenants" in told[0]
    assert told[-1].startswith("2 more routes")
