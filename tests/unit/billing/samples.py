"""Valid objects of the billing library; a test names only the field it is about."""

from typing import Any

import msgspec

from billing.invoices import Aggregate
from billing.meters import Meter, Meters, Provenance
from billing.prices import PriceVersion, Rate, RateCard, picos_per_token, sealed_card
from billing.quantity import Schedule, between
from billing.rating import rate
from billing.usage import VERSION, UsageEvent

HOUR_US = 3_600_000_000
ADMITTED_US = 1_795_298_132_123_456  # 2026-11-21T21:55:32.123456Z


def card(currency: str = "USD", **per_million: str) -> RateCard:
    """`card(input="3", output="15")`; versions are called after their meter."""
    prices = per_million or {"input": "3", "output": "15"}
    return sealed_card(
        currency,
        [Rate(Meter(meter), picos_per_token(text), f"v_{meter}") for meter, text in prices.items()],
    )


def list_price(**changes: Any) -> PriceVersion:
    price = PriceVersion(
        id="price_01",
        book="charge",
        model="chat-default",
        tenant_id=None,
        backend_id=None,
        upstream_model=None,
        meter=Meter.INPUT,
        picos_per_token=picos_per_token("3"),
        currency="USD",
        effective_from_us=0,
    )
    return msgspec.structs.replace(price, **changes)


def cost_price(**changes: Any) -> PriceVersion:
    fields = {"book": "cost", "model": None, "backend_id": "be_1", "upstream_model": "up"}
    return list_price(**(fields | changes))


def event(**changes: Any) -> UsageEvent:
    """An attempt that won: 400 + 600 cached tokens in, 200 out."""
    usage = Meters(input=400, cache_read=600, output=200)
    charge_card = card(input="3", cache_read="0.3", output="15")
    cost_card = card(input="1", cache_read="0.1", output="5")
    sample = UsageEvent(
        v=VERSION,
        event_id="req_01:0",
        request_id="req_01",
        attempt=0,
        winner=True,
        tenant_id="tenant_1",
        team_path=("team_outer", "team_middle", "team_inner"),
        key_id="key_1",
        model="chat-default",
        backend_id="be_1",
        upstream_model="up",
        region="eu-west",
        operation="chat",
        stream=True,
        admitted_at_us=ADMITTED_US,
        finished_at_us=ADMITTED_US + 2_000_000,
        ttft_us=90_000,
        duration_us=2_000_000,
        usage=usage,
        provenance=Provenance.REPORTED,
        reported=usage,
        counted=None,
        reasoning=150,
        currency="USD",
        charge_card=charge_card,
        cost_card=cost_card,
        charge_picos=rate(usage, charge_card),
        cost_picos=rate(usage, cost_card),
        counter_nanos=4_380_000,
        status=200,
        end_by="upstream",
        end_phase="done",
        tags={"project": "atlas"},
    )
    return msgspec.structs.replace(sample, **changes)


def aggregate(**changes: Any) -> Aggregate:
    """Usage of one key; its charge follows from tokens and card unless the test says otherwise."""
    fields: dict[str, Any] = {
        "cost_center": "CC-100",
        "team": "search",
        "key": "indexer",
        "model": "chat-default",
        "backend_region": "eu-west",
        "provenance": "reported",
        "card": card(),
        "meters": Meters(input=1_000, output=500),
    } | changes
    fields.setdefault("charge_picos", rate(fields["meters"], fields["card"]))
    return Aggregate(**fields)


def charge_picos(schedule: Schedule, tokens: int) -> int:
    """What a month of so many tokens costs."""
    return sum(part.amount_picos for part in between(schedule, 0, tokens))
