"""A draft invoice is the ledger, added up: to the last pico, on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from billing.invoices import UnbalancedError
from billing.meters import Meters
from billing.money import minor_picos
from gateway.clock import parse_rfc3339
from gateway.stores.sql import compaction, drafts, invoices, usage
from gateway.stores.sql.drafts import UnknownTenantError
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import postings, rollups, usage_rows
from tests.ledger_events import NOON_US, a_card, a_ledger, an_event


def test_a_drafts_lines_are_rows_rollups_and_postings_to_the_last_pico(database_url: str) -> None:
    odd = a_card(1_234_567, 7_654_321, "odd")
    events = [
        an_event(
            f"req_{n}",
            winner=n % 5 != 0,
            charge_card=odd if n % 3 else an_event().charge_card,
            key_id=("key_bot", "key_gone")[n % 2],
            usage=Meters(input=n * 101, cache_read=n * 13, cache_write_1h=n, output=n * 7),
            admitted_at_us=NOON_US + n * 977_000_000,
        )
        for n in range(200)
    ]
    with a_ledger(database_url) as engine:
        usage.record(engine, [(event, True) for event in events])
        invoice, first = drafts.make_draft(engine, "tenant_acme", "2026-11")
        lines = list(invoices.lines(engine, invoice.id))
        with reading(engine) as connection:
            charges = {
                name: int(connection.scalar(query) or 0)
                for name, query in {
                    "rows": select(func.sum(usage_rows.c.charge_picos)),
                    "rollups": select(func.sum(rolled.c.charge_picos)),
                    "postings": select(func.sum(postings.c.amount_picos)).where(
                        postings.c.account.like("receivable/%")
                    ),
                }.items()
            }

    used = sum(line.amount_picos for line in lines if line.line_kind == "usage")
    assert first
    assert charges == dict.fromkeys(charges, used)
    assert used == sum(event.charge_picos for event in events)
    assert sum(line.amount_picos for line in lines) == minor_picos(invoice.total_minor, "USD")
    assert {line.team for line in lines[:-1]} == {"Support"}
    assert {line.cost_center for line in lines[:-1]} == {"CC-100"}, "the parent's: it has none"
    assert {line.key for line in lines[:-1]} == {"bot", "key_gone"}
    assert [line.line_kind for line in lines].count("rounding") == 1


def test_a_draft_is_refreshed_in_place(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        usage.record(engine, [(an_event("req_1"), True)])
        before, _ = drafts.make_draft(engine, "tenant_acme", "2026-11")
        same, first = drafts.make_draft(engine, "tenant_acme", "2026-11")
        assert (same, first) == (before, False)
        ids_before = [line.line_id for line in invoices.lines(engine, before.id)]

        usage.record(engine, [(an_event(f"req_late_{n}"), True) for n in range(99)])
        after, first = drafts.make_draft(engine, "tenant_acme", "2026-11")

        assert (after.id, after.version, first) == (before.id, before.version + 1, False)
        assert after.created_at_us == before.created_at_us
        lines = list(invoices.lines(engine, after.id))
        assert [line.line_id for line in lines][: len(ids_before)] == ids_before
        assert sum(line.amount_picos for line in lines[:3]) == 100 * an_event().charge_picos
        assert invoices.page(engine, {"tenant_id": "tenant_acme"}, None, 10) == [after]
        assert invoices.one(engine, after.id) == after


def test_a_month_is_the_tenants_month(database_url: str) -> None:
    inside = parse_rfc3339("2026-10-31T23:00:00Z")  # midnight in Berlin
    outside = inside - 1
    with a_ledger(database_url) as engine:
        usage.record(engine, [(an_event("req_1", admitted_at_us=inside), True)])
        usage.record(engine, [(an_event("req_2", admitted_at_us=outside), True)])
        november, _ = drafts.make_draft(engine, "tenant_acme", "2026-11")
        october, _ = drafts.make_draft(engine, "tenant_acme", "2026-10")
        quantities = [
            [line.quantity for line in invoices.lines(engine, each.id) if line.meter == "output"]
            for each in (october, november)
        ]

    assert quantities == [[200], [200]]
    assert october.period_end_us == november.period_start_us == inside


def test_an_empty_month_is_an_empty_invoice(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        invoice, _ = drafts.make_draft(engine, "tenant_bharat", "2026-02")
        assert invoice.total_minor == 0
        assert list(invoices.lines(engine, invoice.id)) == []


def test_an_unknown_tenant_or_month_is_refused(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        with pytest.raises(UnknownTenantError):
            drafts.make_draft(engine, "tenant_none", "2026-11")
        with pytest.raises(ValueError, match="2026-11"):
            drafts.make_draft(engine, "tenant_acme", "November")


def test_simultaneous_refreshes_make_one_draft(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        usage.record(engine, [(an_event("req_1"), True)])
        with ThreadPoolExecutor(4) as pool:
            made = list(
                pool.map(lambda _: drafts.make_draft(engine, "tenant_acme", "2026-11"), range(8))
            )
        assert len({invoice.id for invoice, _ in made}) == 1
        assert [first for _, first in made].count(True) == 1


def test_a_ledger_that_contradicts_itself_is_not_invoiced(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        usage.record(engine, [(an_event("req_1"), True)])
        compaction.compact(engine)
        with transaction(engine) as connection:
            connection.execute(rollups.update().values(charge_picos=rollups.c.charge_picos + 1))
        with pytest.raises(UnbalancedError):
            drafts.make_draft(engine, "tenant_acme", "2026-11")
        assert invoices.page(engine, {}, None, 10) == []


def test_a_draft_can_be_thrown_away(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        usage.record(engine, [(an_event("req_1"), True)])
        invoice, _ = drafts.make_draft(engine, "tenant_acme", "2026-11")
        assert drafts.remove_draft(engine, invoice.id)
        assert not drafts.remove_draft(engine, invoice.id)
        assert invoices.one(engine, invoice.id) is None
