"""Whatever arrives, in whatever batches and however often: rows, rollups, postings and invoice say
the same to the last pico.
"""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from billing.meters import Meters, Provenance
from billing.money import minor_picos
from gateway.stores.sql import drafts, invoices, usage, usage_reports
from gateway.stores.sql.engine import reading
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import postings, usage_rows
from gateway.stores.sql.usage_reports import Question
from tests.ledger_events import NOON_US, a_card, a_ledger, an_event

DAY_US = 24 * 3_600_000_000
CARDS = [a_card(n * 1_234_567 + 1, n * 7_654_321 + 3, f"v{n}") for n in range(3)]
tokens = st.integers(0, 2_000_000)

deliveries = st.lists(
    st.lists(
        st.builds(
            lambda n, winner, key, card, cost, meters, provenance, day: an_event(
                f"req_{n}",
                winner=winner,
                key_id=key,
                charge_card=card,
                cost_card=cost,
                usage=meters,
                provenance=provenance,
                admitted_at_us=NOON_US + day * DAY_US,
            ),
            n=st.integers(0, 40),
            winner=st.booleans(),
            key=st.sampled_from(["key_bot", "key_x"]),
            card=st.sampled_from(CARDS),
            cost=st.sampled_from([None, *CARDS]),
            meters=st.builds(Meters, tokens, tokens, tokens, tokens, tokens),
            provenance=st.sampled_from(Provenance),
            day=st.integers(-45, 0),  # a month that has not begun has no draft
        ),
        max_size=20,
    ),
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(deliveries)
def test_every_view_of_the_money_agrees(batches: list[list[Any]]) -> None:
    first = {event.event_id: event for batch in reversed(batches) for event in reversed(batch)}
    with (
        tempfile.TemporaryDirectory() as directory,
        a_ledger(f"sqlite:///{Path(directory) / 'ledger.sqlite'}") as engine,
    ):
        # What an event says is a function of its id, as it is of a real one.
        said = [[(first[event.event_id], True) for event in batch] for batch in batches]
        booked = sum(usage.record(engine, batch) for batch in said)
        months = [
            drafts.make_draft(engine, "tenant_acme", month)[0] for month in ("2026-10", "2026-11")
        ]
        lines = [line for month in months for line in invoices.lines(engine, month.id)]
        with reading(engine) as connection:
            in_rows = connection.scalar(select(func.sum(usage_rows.c.charge_picos))) or 0
            in_rollups = connection.scalar(select(func.sum(rolled.c.charge_picos))) or 0
            posted = list(connection.execute(select(postings)).mappings())
        span = {"start_us": NOON_US - 50 * DAY_US, "end_us": NOON_US + DAY_US}
        reported = usage_reports.report(engine, Question(**span, group_by=("day", "key")))

    charged = sum(event.charge_picos for event in first.values())
    cost = sum(event.cost_picos for event in first.values())
    assert booked == len(first)
    assert in_rows == in_rollups == charged
    assert sum(line.amount_picos for line in lines if line.line_kind == "usage") == charged
    assert sum(line.amount_picos for line in lines) == sum(
        minor_picos(month.total_minor, "USD") for month in months
    )
    assert _sum(posted, "receivable/") == -_sum(posted, "revenue/") == charged
    assert _sum(posted, "cost_of_service/") == -_sum(posted, "provider/") == cost
    assert sum(group.charge_picos for group in reported) == charged
    assert sum(group.cost_picos for group in reported) == cost


def _sum(posted: list[Any], prefix: str) -> int:
    return sum(row["amount_picos"] for row in posted if row["account"].startswith(prefix))
