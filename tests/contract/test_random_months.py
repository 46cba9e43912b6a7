"""Months at random: late usage, estimates that prove wrong, voids, other time zones, minimums and
prices by quantity. Whatever happened, the invoices that stand come to what a plain sum says.
"""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, text

from billing.meters import Meter, Meters, Provenance
from billing.prices import Rate, RateCard, sealed_card
from billing.quantity import Schedule, Step
from gateway import clock
from gateway.stores.sql import books, compaction, explained, invoices, issuing, tenants
from gateway.stores.sql.draft_lines import PeriodClosedError
from gateway.stores.sql.engine import reading, transaction
from tests.invoicing import ACME, agree, book, drafted, issued, october
from tests.ledger_events import a_ledger
from tests.unit.billing.samples import charge_picos

MONTHS: Final = ("2026-06", "2026-07", "2026-08", "2026-09", "2026-10")
ALL: Final = ("2026-05", *MONTHS, "2026-11")
ZONES: Final = ("Etc/UTC", "Europe/Berlin", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kolkata")
SIZES: Final = (1, 3_000_000, 9_999_999, 10_000_000, 10_000_001, 25_000_000)
MINIMUM_PICOS: Final = 70 * 10**12
STEPS: Final = (Step(0, 3_000_000), Step(10_000_000, 2_000_000), Step(20_000_000, 1_000_000))


def a_card(name: str, picos: int, schedule: Schedule | None = None) -> RateCard:
    return sealed_card("USD", [Rate(Meter.INPUT, picos, name, schedule)])


CARDS: Final = (
    a_card("p_flat", 3_000_000),
    a_card("p_free", 0),
    a_card("p_graduated", 3_000_000, Schedule("graduated", STEPS)),
    a_card("p_volume", 3_000_000, Schedule("volume", STEPS)),
)


class Story:
    """What happens to one tenant."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.chance = engine, Random(seed)
        self.estimates: list[tuple[str, str, RateCard]] = []
        self.count = 0

    def tell(self) -> None:
        kinds = [self.use] * 45 + [self.learn] * 7 + [self.bill] * 28 + [self.void] * 12
        kinds += [self.move] * 4 + [self.compact] * 4
        for _ in range(self.chance.randint(10, 45)):
            self.chance.choice(kinds)()
        for month in ALL * 2:  # what came late to a month that is billed now is on the next
            self.bill(month, early=True)

    def use(self) -> None:
        self.count += 1
        name, card = f"req_{self.count}", self.chance.choice(CARDS)
        at = f"{self.chance.choice(MONTHS)}-{self.chance.choice((1, 1, 15, 28)):02d}T"
        at += self.chance.choice(("00:00:00Z", "23:59:59Z", "12:00:00Z", "22:00:00Z"))
        given: dict[str, Any] = {}
        if self.chance.random() < 0.2:
            given = {"hold": "estimated", "provenance": Provenance.ESTIMATED}
            self.estimates.append((name, at, card))
        tokens = Meters(input=self.chance.choice(SIZES))
        book(self.engine, october(name, at, usage=tokens, charge_card=card, **given))

    def learn(self) -> None:
        """What was estimated was something else."""
        if self.estimates:
            name, at, card = self.estimates.pop()
            truth = Meters(input=self.chance.choice(SIZES))
            book(self.engine, october(name, at, usage=truth, charge_card=card))

    def bill(self, month: str = "", *, early: bool = False) -> None:
        with suppress(PeriodClosedError):
            draft = drafted(self.engine, month or self.chance.choice(MONTHS))
            issued(self.engine, draft, early=early)

    def void(self) -> None:
        with reading(self.engine) as connection:
            where = {"tenant_id": ACME, "status": "issued"}
            there = invoices.seen(connection, where, None, 100)
        if there:
            with transaction(self.engine) as connection:
                wrong = issuing.locked(connection, self.chance.choice(there))
                issuing.void(connection, wrong, "wrong")

    def move(self) -> None:
        with transaction(self.engine) as connection:
            row = tenants.RECORDS.one(connection, id=ACME)
            if row is not None:
                moved = replace(row, timezone=self.chance.choice(ZONES))
                tenants.RECORDS.replace(connection, moved)

    def compact(self) -> None:
        compaction.compact(self.engine)


LINES: Final = (
    "SELECT l.period_start_us, line_kind, amount_picos FROM invoice_lines l"
    " JOIN invoices i ON i.id = l.invoice_id WHERE i.status = 'issued'"
)


def found(engine: Engine, query: str) -> list[Any]:
    with reading(engine) as connection:
        return list(connection.execute(text(query)))


def worth(tokens: Counter[str]) -> int:
    """Of a month, by card, in picos."""
    amount = 0
    for card in CARDS:
        (rate,) = card.rates
        if rate.schedule is not None and tokens[card.id]:
            amount += charge_picos(rate.schedule, tokens[card.id])
        elif rate.schedule is None:
            amount += tokens[card.id] * rate.picos_per_token
    return amount


@pytest.mark.long
@pytest.mark.parametrize("seed", range(24))
def test_whatever_happens_each_month_is_billed_what_it_comes_to(tmp_path: Path, seed: int) -> None:
    with a_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as engine:
        agree(engine, minimum="70")
        Story(engine, seed).tell()

        rows = found(engine, "SELECT admitted_at_us, input_tokens, charge_card FROM usage_rows")
        lines = Counter[tuple[int, str]]()
        for start_us, kind, picos in found(engine, LINES):
            lines[start_us, kind] += picos
        spans = found(
            engine,
            "SELECT DISTINCT period_start_us, period_end_us FROM invoices"
            " WHERE status = 'issued' AND kind = 'invoice'",
        )
        for start_us, end_us in spans:
            tokens = Counter[str]()
            for at_us, count, card in rows:
                tokens[card] += count if start_us <= at_us < end_us else 0
            assert lines[start_us, "usage"] == worth(tokens)
            due = max(0, MINIMUM_PICOS - worth(tokens)) if end_us <= clock.now_us() else 0
            assert lines[start_us, "minimum"] == due
        assert all(any(start <= at_us < end for start, end in spans) for at_us, *_ in rows)
        with reading(engine) as connection:
            assert books.check(connection).faults == ()
        assert_explained(engine)


def assert_explained(engine: Engine) -> None:
    """Every line that was ever issued, and each invoice as a whole, by the requests behind it."""
    with reading(engine) as connection:
        for invoice in invoices.seen(connection, {"tenant_id": ACME}, None, 1_000):
            for line in [*invoices.lines_of(connection, invoice.id), None]:
                assert explained.behind(connection, invoice, line).adds_up, (invoice, line)
