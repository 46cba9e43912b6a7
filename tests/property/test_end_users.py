"""Whoever asks and is erased in whatever order, and however late it is booked: rows are a person's
as a model of three lines says, nothing leads to what was erased, and no chain breaks.
"""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from gateway.stores.sql import books, erasure
from gateway.stores.sql.end_user_tables import end_users
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.tables import usage_rows
from tests.invoicing import ACME, book
from tests.ledger_events import NOON_US, a_ledger, an_event

STEP_US = 10
PEOPLE = [f"1:{n:064x}" for n in range(3)]
person = st.sampled_from(PEOPLE)
# A batch of bookings, each of somebody who asked so long ago; or somebody is erased.
steps = st.lists(st.lists(st.tuples(person, st.integers(0, 40)), max_size=4) | person, max_size=14)


class Model:
    """Whose a row is: a number for each life of a person between two erasures; None: nobody's."""

    def __init__(self) -> None:
        self.lives = dict.fromkeys(PEOPLE, 0)
        self.erased = dict.fromkeys(PEOPLE, -1)

    def booked(self, whose: str, admitted_us: int) -> tuple[str, int] | None:
        return None if admitted_us <= self.erased[whose] else (whose, self.lives[whose])

    def erase(self, whose: str, now_us: int) -> None:
        self.lives[whose] += 1
        self.erased[whose] = now_us


@settings(max_examples=12, deadline=None)
@given(steps)
def test_rows_are_whose_the_model_says(steps: list[Any]) -> None:
    model, expected = Model(), dict[str, tuple[str, int] | None]()
    with (
        tempfile.TemporaryDirectory() as directory,
        a_ledger(f"sqlite:///{Path(directory) / 'ledger.sqlite'}") as engine,
    ):
        for n, step in enumerate(steps):
            now_us = NOON_US + n * STEP_US
            if isinstance(step, str):
                with transaction(engine) as connection:
                    erasure.erase(connection, ACME, [step], now_us)
                model.erase(step, now_us)
                continue
            events = []
            for place, (whose, ago) in enumerate(step):
                event = an_event(f"req_{n}_{place}", end_user=whose, admitted_at_us=now_us - ago)
                expected[event.event_id] = model.booked(whose, now_us - ago)
                events.append(event)
            book(engine, *events)
        with reading(engine) as connection:
            of = usage_rows.c
            rows = connection.execute(select(of.event_id, of.end_user)).all()
            linked = set(connection.scalars(select(end_users.c.subject))) - {None}
            faults = books.check(connection).faults

    found = {row.event_id: row.end_user for row in rows}
    assert {id_ for id_, whose in found.items() if whose is None} == {
        id_ for id_, whose in expected.items() if whose is None
    }
    told = {(found[id_], whose) for id_, whose in expected.items() if whose is not None}
    assert len(told) == len({subject for subject, _ in told}) == len({whose for _, whose in told})
    assert linked == {subject for subject, (whose, life) in told if life == model.lives[whose]}
    assert faults == ()
