"""However months are booked, drafted, issued early or late, and voided: in the end everything that
was used is billed once, to the last pico, in the period it was used in.
"""

from collections import Counter
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from billing.meters import Meters, Provenance
from billing.periods import month
from billing.usage import UsageEvent
from gateway import clock
from gateway.stores.sql import books, drafts, invoices, issuing
from gateway.stores.sql.draft_lines import PeriodClosedError
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from tests.invoicing import ACME, book, drafted, issued, lines_of, october
from tests.ledger_events import a_ledger

BERLIN = ZoneInfo("Europe/Berlin")
MONTHS = ["2026-07", "2026-08", "2026-09"]
LAST = "2026-10"
Sums = Counter[int]  # picos by the start of the period


class Months:
    """What a finance department may do in any order, and what it must come to."""

    def __init__(self, engine: Engine, chance: Random) -> None:
        self.engine = engine
        self.chance = chance
        self.used: Sums = Counter()
        self.count = 0

    def step(self) -> None:
        steps = [self.book, self.guess, self.draft, self.issue, self.void]
        (step,) = self.chance.choices(steps, [5, 1, 2, 2, 1])
        step()

    def book(self) -> None:
        name, tokens = self._name(), Meters(input=self.chance.randint(1, 10**6))
        self._booked(october(name, self._instant(), usage=tokens), tokens.input)

    def guess(self) -> None:
        """An estimate that is proved wrong, now or after its month was issued."""
        name, at, tokens = self._name(), self._instant(), self.chance.randint(1, 10**6)
        guessed: dict[str, Any] = {"hold": "estimated", "provenance": Provenance.ESTIMATED}
        book(self.engine, october(name, at, usage=Meters(input=9 * 10**6), **guessed))
        if self.chance.random() < 0.5:
            self.issue()
        self._booked(october(name, at, usage=Meters(input=tokens)), tokens)

    def draft(self) -> None:
        try:
            drafted(self.engine, self.chance.choice(MONTHS))
        except PeriodClosedError:
            return

    def issue(self) -> None:
        found = invoices.page(self.engine, {"status": "draft", "tenant_id": ACME}, None, 10)
        if found:
            issued(self.engine, self.chance.choice(found))

    def void(self) -> None:
        found = invoices.page(self.engine, {"status": "issued", "tenant_id": ACME}, None, 50)
        if found:
            with transaction(self.engine) as connection:
                one = issuing.locked(connection, self.chance.choice(found))
                issuing.void(connection, one, "by chance")

    def close(self) -> list[Invoice]:
        """Every month that is not closed, and then the next one's draft, which has all the rest."""
        for period in MONTHS:
            try:
                issued(self.engine, drafted(self.engine, period))
            except PeriodClosedError:
                continue
        last = drafted(self.engine, LAST)
        everything = invoices.page(self.engine, {"tenant_id": ACME}, None, 200)
        return [last, *(each for each in everything if each.status == "issued")]

    def _booked(self, event: UsageEvent, tokens: int) -> None:
        book(self.engine, event)
        at_us = event.admitted_at_us
        spans = [month(period, BERLIN) for period in MONTHS]
        (span,) = [each for each in spans if each.start_us <= at_us < each.end_us]
        self.used[span.start_us] += tokens * 3_000_000

    def _name(self) -> str:
        self.count += 1
        return f"req_{self.count}"

    def _instant(self) -> str:
        span = month(self.chance.choice(MONTHS), BERLIN)
        edges = [span.start_us, span.end_us - 1, self.chance.randrange(span.start_us, span.end_us)]
        return clock.rfc3339(self.chance.choice(edges))


@pytest.mark.parametrize("seed", range(12))
def test_everything_is_billed_once_in_the_period_it_was_used_in(sqlite_url: str, seed: int) -> None:
    with a_ledger(sqlite_url) as engine:
        months = Months(engine, Random(seed))
        for _ in range(40):
            months.step()

        final = months.close()

        billed: Sums = Counter()
        for invoice in final:
            for line in lines_of(engine, invoice):
                if line.line_kind == "usage":
                    billed[line.period_start_us] += line.amount_picos
        assert +billed == +months.used
        with reading(engine) as connection:
            assert books.check(connection).faults == ()
        assert drafts.make_draft(engine, ACME, LAST)[0] == final[0], "nothing is left to be found"
