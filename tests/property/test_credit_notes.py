"""Whatever is credited and voided of an invoice, in any order: a note is refused exactly when the
invoice or its line has not as much left, and its number is lost by nothing.
"""

import itertools
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from billing.credit_notes import OverCreditedError
from billing.invoices import InvoiceLine
from billing.meters import Meters
from gateway.stores.sql import issuing
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.invoices import Invoice
from tests.invoicing import amounts, book, credited, drafted, is_intact, issued, lines_of, october
from tests.ledger_events import a_ledger

MONTHS = itertools.count()  # each example has one of its own
WHOLE = -1
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["credit", "credit", "void"]),
        st.sampled_from([WHOLE, 0, 0, 1]),  # the line
        st.integers(-1, 1),  # minor units more than what is left: refused from 1 on
        st.integers(0, 2**16),
    ),
    min_size=4,
    max_size=10,
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with (
        tempfile.TemporaryDirectory() as directory,
        a_ledger(f"sqlite:///{Path(directory) / 'ledger.sqlite'}") as engine,
    ):
        yield engine


class Model:
    """What is left of an invoice and its lines, as a reader of its notes would add it up."""

    def __init__(self, total: int, lines: list[InvoiceLine]) -> None:
        self.total, self.lines = total, lines
        self.notes: list[tuple[Invoice, int]] = []  # those that stand, and their line

    def left(self, line: int) -> int:
        whole = self.total + sum(note.total_minor for note, _ in self.notes)
        if line == WHOLE:
            return whole
        of_line = sum(note.total_minor for note, on in self.notes if on == line)
        return min(whole, self.lines[line].amount_minor + of_line)


# A smaller example is not worth minutes of invoices that the database has to make for it.
@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(STEPS, st.integers(1, 2**32))
def test_a_note_is_refused_exactly_when_too_little_is_left(
    engine: Engine, steps: list[tuple[str, int, int, int]], seed: int
) -> None:
    invoice, dice = an_invoice(engine, Random(seed)), Random(seed)
    model = Model(invoice.total_minor, lines_of(engine, invoice)[:4])
    for step, line, more, figure in steps:
        if step == "credit":
            left = model.left(line)
            minor = left + more if figure % 2 else dice.randint(0, left + 1)
            credit(engine, invoice, model, line, minor)
        elif model.notes:
            note, _ = model.notes.pop(figure % len(model.notes))
            with transaction(engine) as connection:
                issuing.void(connection, issuing.locked(connection, note), "typo")

    stands = sum(note.total_minor for note, _ in model.notes)
    assert invoice.total_minor + stands >= 0
    told = sum((amount for note, _ in model.notes for amount in amounts(engine, note)), Decimal(0))
    assert told == Decimal(stands) / 100
    assert is_intact(engine, invoice) is True


def an_invoice(engine: Engine, dice: Random) -> Invoice:
    """Of a month that no other example has: four payers, with cents that are rounded."""
    number = next(MONTHS)
    period = f"{1990 + number // 12}-{number % 12 + 1:02d}"
    for key in range(4):
        usage = Meters(input=dice.randint(1, 3_000_000))
        at = f"{period}-14T12:00:00Z"
        book(engine, october(f"req_{period}_{key}", at, usage=usage, key_id=f"key_{key}"))
    return issued(engine, drafted(engine, period))


def credit(engine: Engine, invoice: Invoice, model: Model, line: int, minor: int) -> None:
    on = None if line == WHOLE else model.lines[line].line_id
    if not 0 < minor <= model.left(line):
        with pytest.raises(OverCreditedError):
            credited(engine, invoice, minor, on)
        return
    note = credited(engine, invoice, minor, on)
    assert (note.total_minor, note.status) == (-minor, "issued")
    number = int((note.number or "").rpartition("-")[2])
    assert number == next(NOTES), "no number is lost by a note that was refused"
    model.notes.append((note, line))


NOTES = itertools.count(1)
