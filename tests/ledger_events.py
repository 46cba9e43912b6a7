"""Usage events as a data plane would send them, and a ledger for them to land in."""

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine

from billing.meters import Meter, Meters, Provenance
from billing.money import counter_units
from billing.prices import Rate, RateCard, sealed_card
from billing.rating import rate
from billing.usage import VERSION, UsageEvent
from gateway.stores.sql import backends, keys, teams, tenants
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import Backend, Key, Team, Tenant
from tests.schema import with_tables

NOON_US = 1_795_262_400_000_000  # 2026-11-21T12:00:00Z

MICROS_PER_HOUR = 3_600_000_000


def a_card(input_picos: int, output_picos: int, name: str, currency: str = "USD") -> RateCard:
    return sealed_card(
        currency,
        [
            Rate(Meter.INPUT, input_picos, f"price_{name}_in"),
            Rate(Meter.CACHE_READ, input_picos // 10, f"price_{name}_cache"),
            Rate(Meter.OUTPUT, output_picos, f"price_{name}_out"),
        ],
    )


CHARGE = a_card(3_000_000, 15_000_000, "charge")
COST = a_card(2_500_000, 12_345_679, "cost")


def an_event(request: str = "req_1", attempt: int = 1, **changes: Any) -> UsageEvent:
    """One answered chat request; amounts follow from the usage and cards of the finished event."""
    fields: dict[str, Any] = {
        "v": VERSION,
        "event_id": f"{request}:{attempt}",
        "request_id": request,
        "attempt": attempt,
        "winner": True,
        "tenant_id": "tenant_acme",
        "team_path": ("team_eu", "team_support"),
        "key_id": "key_bot",
        "model": "chat-default",
        "backend_id": "backend_eu",
        "upstream_model": "smol",
        "region": "eu-west-1",
        "operation": "chat",
        "stream": False,
        "admitted_at_us": NOON_US,
        "finished_at_us": NOON_US + 1_000_000,
        "ttft_us": 120_000,
        "duration_us": 900_000,
        "usage": Meters(input=400, cache_read=600, output=200),
        "provenance": Provenance.REPORTED,
        "reported": Meters(input=400, cache_read=600, output=200),
        "counted": Meters(input=1001, output=200),
        "reasoning": 0,
        "currency": "USD",
        "charge_card": CHARGE,
        "cost_card": COST,
        "status": 200,
        "end_by": "upstream",
        "end_phase": "done",
        "tags": {},
        **changes,
    }
    usage, cost_card = fields["usage"], fields["cost_card"]
    charge = rate(usage, fields["charge_card"]) if fields["winner"] else 0
    fields.setdefault("charge_picos", charge)
    fields.setdefault("cost_picos", rate(usage, cost_card) if cost_card else 0)
    fields.setdefault("counter_nanos", counter_units(charge, fields["currency"]))
    return UsageEvent(**fields)


@contextlib.contextmanager
def a_ledger(url: str) -> Iterator[Engine]:
    """A migrated database with two tenants (Berlin, Kolkata), two nested teams and two keys."""
    engine = with_tables(url)
    try:
        seed(engine)
        yield engine
    finally:
        engine.dispose()


def seed(engine: Engine) -> None:
    """What the tables of a ledger have of its tenants."""
    acme = Tenant(id="tenant_acme", name="Acme", currency="USD", timezone="Europe/Berlin")
    bharat = Tenant(id="tenant_bharat", name="Bharat", currency="USD", timezone="Asia/Kolkata")
    eu = Team(id="team_eu", tenant_id=acme.id, name="Europe", cost_center="CC-100")
    support = Team(id="team_support", tenant_id=acme.id, parent_id=eu.id, name="Support")
    labs = Team(id="team_labs", tenant_id=bharat.id, name="=Labs", cost_center="CC-7")
    bot = Key(id="key_bot", tenant_id=acme.id, team_id=support.id, name="bot")
    lab = Key(id="key_lab", tenant_id=bharat.id, team_id=labs.id, name="lab")
    backend = Backend(
        id="backend_eu",
        name="eu",
        dialect="openai",
        base_url="http://127.0.0.1:1/v1",
        region="eu-west-1",
    )
    with transaction(engine) as connection:
        for tenant in (acme, bharat):
            tenants.RECORDS.add(connection, tenant)
        for team in (eu, support, labs):
            teams.RECORDS.add(connection, team)
        for key in (bot, lab):
            keys.RECORDS.add(connection, key)
        backends.RECORDS.add(connection, backend)
