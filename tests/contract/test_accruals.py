"""What is accrued at the end of a month is what the invoices say that are issued after it."""

from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pytest
from sqlalchemy import Engine, func, select

from billing.discounts import Discount
from billing.meters import Meter, Meters
from billing.money import format_picos, minor_picos
from billing.periods import window
from billing.prices import PriceBook, PriceVersion, RateCard
from billing.quantity import Schedule, Step
from billing.terms import Terms
from gateway.clock import now_us, rfc3339
from gateway.stores.sql import accruals, commitments, drafts, tenants, terms
from gateway.stores.sql.draft_lines import following
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rows import Commitment, Tenant
from gateway.stores.sql.tables import postings
from tests.invoicing import book, issued, october
from tests.ledger_events import a_ledger

MONTHS: Final = ("2026-05", "2026-06", "2026-07", "2026-08")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def a_card(**changes: Any) -> RateCard:
    """Input at 3.00 a million, output at 15.00, with 12.5 percent off the former."""
    listed = PriceVersion(
        id="p_in", book="charge", model="chat-default", tenant_id=None, backend_id=None,
        upstream_model=None, meter=Meter.INPUT, picos_per_token=3_000_000, currency="USD",
        effective_from_us=0,
    )  # fmt: skip
    output = msgspec.structs.replace(
        listed, id="p_out", meter=Meter.OUTPUT, picos_per_token=15_000_000
    )
    off = Discount(
        id="d_1", tenant_id="any", percent_e4=125_000, effective_from_us=0, meter=Meter.INPUT
    )
    versions = [msgspec.structs.replace(listed, **changes), output]
    card = PriceBook(versions, discounts=[off]).charge_card("any", "chat-default", 1)
    assert card is not None
    return card


def tiers(mode: Any) -> Schedule:
    return Schedule(mode, (Step(0, 3_000_000), Step(10_000_000, 2_000_000)))


CARDS: Final = (
    a_card(),
    a_card(schedule=tiers("graduated")),
    a_card(id="p_v", schedule=tiers("volume")),
)


class House:
    """A tenant of its own: what it agreed to and used follows from a seed."""

    def __init__(self, engine: Engine, seed: int, zone: str) -> None:
        self.engine, self.random, self.used = engine, Random(seed), 0
        self.id = f"tenant_{seed}"
        self.tenant = Tenant(id=self.id, name=f"T{seed}", currency="USD", timezone=zone)
        with transaction(engine) as connection:
            tenants.RECORDS.add(connection, self.tenant)

    def agrees(self) -> None:
        if self.random.random() < 0.5:
            self.minimum(self.random.choice(["20", "150.01"]))
        begins = [self.random.choice(["2026-05-01", "2026-05-16", "2026-06-01"]), "2026-07-01"]
        begins = self.random.choice([begins[:1], begins, begins, []])
        for each in begins:
            given: dict[str, Any] = {
                "amount": self.random.choice(["30", "99.99", "200"]),
                "term": self.random.choice(["month", "quarter"]),
                "prepaid": self.random.random() < 0.5,
                "overage_percent": self.random.choice(["100", "80", "125"]),
                "rollover_percent": self.random.choice(["0", "50"]),
                "last_day": "2026-08-31" if each == begins[-1] else None,
            }
            row = Commitment(id=f"cmt_{self.id}_{each}", tenant_id=self.id, first_day=each, **given)
            with transaction(self.engine) as connection:
                commitments.RECORDS.add(connection, row)

    def minimum(self, amount: str | None) -> None:
        with transaction(self.engine) as connection:
            terms.put(connection, terms.of(connection, self.id), Terms(minimum=amount))

    def uses(self, at: str, most: int = 3, least: int = 0) -> None:
        for _ in range(self.random.randint(least, most)):
            self.used += 1
            tokens = Meters(
                input=self.random.randrange(20_000_000), output=self.random.randrange(3_000_000)
            )
            team = self.random.choice(["team_a", "team_b"])
            given = {"tenant_id": self.id, "team_path": (team,), "usage": tokens}
            card = self.random.choice(CARDS)
            book(self.engine, october(f"{self.id}_{self.used}", at, charge_card=card, **given))

    def bills(self, month: str) -> int:
        return minor_picos(issued(self.engine, self.drafts(month)).total_minor, "USD")

    def drafts(self, month: str) -> Invoice:
        return drafts.make_draft(self.engine, self.id, month)[0]

    def accrued(self, month: str) -> dict[str, int]:
        """By the month whose invoice will have it, all of it."""
        found: dict[str, int] = defaultdict(int)
        with reading(self.engine) as connection:
            for each in accruals.of_month(connection, self.tenant, month):
                found[each.period] += each.accrued_picos
        return {each: picos for each, picos in found.items() if picos}

    def unbilled(self, month: str) -> int:
        with reading(self.engine) as connection:
            found = accruals.of_month(connection, self.tenant, month)
            return sum(each.unbilled_picos for each in found)

    def receivable(self) -> int:
        """By the double entry."""
        of = postings.c
        with reading(self.engine) as connection:
            mine = of.account.like(f"receivable/{self.id}/%")
            return int(connection.scalar(select(func.sum(of.amount_picos)).where(mine)) or 0)


def not_nothing(figures: dict[str, int]) -> dict[str, int]:
    return {each: picos for each, picos in figures.items() if picos}


def test_what_is_accrued_is_what_is_invoiced_then(engine: Engine) -> None:
    for seed in range(5):
        house = House(engine, seed, ("Europe/Berlin", "Asia/Kolkata")[seed % 2])
        house.agrees()
        for month in MONTHS:
            house.uses(f"{month}-14T12:00:00Z", least=month == MONTHS[0])
        said, unbilled = house.accrued(MONTHS[-1]), house.unbilled(MONTHS[-1])

        assert unbilled == house.receivable()
        assert said == not_nothing({month: house.bills(month) for month in MONTHS}), seed


def test_what_is_invoiced_is_not_accrued_again_and_what_is_late_is(engine: Engine) -> None:
    """The running month, after those before were issued, some of them in time."""
    for seed in range(10, 12):
        house = House(engine, seed, "Europe/Berlin")
        house.agrees()
        for month in MONTHS:
            house.uses(f"{month}-14T12:00:00Z")
            house.bills(month)
            house.uses(f"{month}-20T12:00:00Z", 1)
        house.minimum(None)
        at_us = now_us()
        now = window("month", ZoneInfo("Europe/Berlin"), at_us).id.removeprefix("m")
        house.uses("2026-09-14T12:00:00Z")
        house.uses(rfc3339(at_us))
        said, unbilled = house.accrued(now), house.unbilled(now)

        assert unbilled == house.receivable()
        told, each = {}, "2026-09"
        while each < now:
            told[each] = house.bills(each)
            each = following(each)
        told[now] = minor_picos(house.drafts(now).total_minor, "USD")
        assert said == not_nothing(told), seed
        issued(engine, house.drafts(now), early=True)
        assert house.accrued(now) == {}
        house.uses(rfc3339(at_us))
        left = minor_picos(house.drafts(now).total_minor, "USD")
        assert house.accrued(now) == not_nothing({now: left})


def test_each_figure_of_a_month_with_a_prepaid_quarter_and_overage(engine: Engine) -> None:
    """300 for the quarter, in advance; of 360 in July and August the rest is overage at half."""
    house = House(engine, 1, "UTC")
    row = Commitment(
        id="cmt_1", tenant_id=house.id, amount="300", term="quarter", first_day="2026-07-01",
        prepaid=True, overage_percent="50",
    )  # fmt: skip
    with transaction(engine) as connection:
        commitments.RECORDS.add(connection, row)
    at = {"tenant_id": house.id, "team_path": ("team_a",), "usage": Meters(input=60_000_000)}
    book(engine, october("req_1", "2026-07-14T12:00:00Z", **at))
    book(engine, october("req_2", "2026-08-14T12:00:00Z", **at))

    with reading(engine) as connection:
        july = accruals.of_month(connection, house.tenant, "2026-07")
        august = accruals.of_month(connection, house.tenant, "2026-08")

    assert [figures(each) for each in july] == [
        ("2026-07", "usage", "180", "180", "180", "0"),
        ("2026-07", "commitment", "0", "0", "0", "300"),
    ]
    assert [figures(each) for each in august] == [
        ("2026-07", "usage", "0", "180", "180", "0"),
        ("2026-07", "commitment", "0", "0", "0", "300"),
        ("2026-08", "usage", "180", "180", "120", "30"),
    ]


def test_an_invoice_in_another_currency_is_accrued_exactly_in_that_of_the_ledger(
    engine: Engine,
) -> None:
    """No rate is needed for it, and nothing is rounded yet."""
    house = House(engine, 1, "UTC")
    with transaction(engine) as connection:
        terms.put(connection, terms.of(connection, house.id), Terms(currency="EUR"))
    at = {"tenant_id": house.id, "team_path": ("team_a",), "usage": Meters(input=1)}
    book(engine, october("req_1", "2026-07-14T12:00:00Z", **at))

    with reading(engine) as connection:
        found = accruals.of_month(connection, house.tenant, "2026-07")

    assert [figures(each) for each in found] == [
        ("2026-07", "usage", "0.000003", "0.000003", "0", "0.000003")
    ]


def figures(each: accruals.Accrued) -> tuple[str, ...]:
    picos = (each.charged_picos, each.unbilled_picos, each.covered_picos, each.accrued_picos)
    return each.period, each.kind, *map(format_picos, picos)
