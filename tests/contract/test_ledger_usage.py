"""The ledger books every event once, on SQLite and on PostgreSQL alike."""

import random
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from sqlalchemy import Engine, func, select

from billing.meters import Meters
from billing.prices import RateCard
from gateway.stores.sql import ledger, rate_cards, usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.rate_cards import CardConflictError
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import postings, usage_rows
from gateway.stores.sql.usage import UnfitEventError
from tests.ledger_events import CHARGE, COST, a_card, a_ledger, an_event


def test_an_event_becomes_one_row_with_everything_it_says(database_url: str) -> None:
    event = an_event(tags={"app": "desk"}, reasoning=7)
    with a_ledger(database_url) as engine:
        assert usage.record(engine, [(event, True)]) == 1

        with reading(engine) as connection:
            row = connection.execute(select(usage_rows)).mappings().one()
            assert rate_cards.get(connection, [row["charge_card"]]) == {CHARGE.id: CHARGE}
        assert row["event_id"] == "req_1:1"
        assert row["team_id"] == "team_support"
        assert row["team_path"] == "team_eu/team_support"
        assert msgspec.json.decode(row["reported"], type=Meters) == event.reported
        assert row["tags"] == '{"app":"desk"}'
        assert (row["charge_picos"], row["cost_picos"]) == (event.charge_picos, event.cost_picos)
        assert row["hold"] == "settled"
        assert row["reasoning_tokens"] == 7


def test_a_repeated_delivery_changes_nothing(database_url: str) -> None:
    events = [(an_event(f"req_{n}"), True) for n in range(20)]
    with a_ledger(database_url) as engine:
        assert usage.record(engine, events) == 20
        before = _everything(engine)

        assert usage.record(engine, events) == 0
        assert usage.record(engine, [*events, (an_event("req_new"), True), *events]) == 1
        assert usage.record(engine, [(an_event("req_new"), True)]) == 0

        after = _everything(engine)
        assert after["rows"] == before["rows"] + 1
        assert after["attempts"] == before["attempts"] + 1
        assert after["charge"] == after["rolled_charge"] == 21 * an_event().charge_picos


def test_writers_of_the_same_shuffled_events_book_each_once(database_url: str) -> None:
    events = [(an_event(f"req_{n:03}", key_id=f"key_{n % 7}"), True) for n in range(300)]
    with a_ledger(database_url) as engine:

        def deliver(seed: int) -> int:
            mine = events.copy()
            random.Random(seed).shuffle(mine)
            return sum(usage.record(engine, mine[n : n + 50]) for n in range(0, 300, 50))

        with ThreadPoolExecutor(4) as pool:
            booked = sum(pool.map(deliver, range(4)))

        assert booked == 300
        found = _everything(engine)
        assert found["rows"] == found["attempts"] == 300
        assert found["charge"] == found["rolled_charge"] == 300 * an_event().charge_picos


def test_an_event_without_its_hold_says_so(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        usage.record(engine, [(an_event("req_a"), False), (an_event("req_b"), True)])
        usage.record(engine, [(an_event("req_c", hold="estimated"), False)])

        with reading(engine) as connection:
            columns = select(usage_rows.c.hold).order_by(usage_rows.c.event_id)
            assert list(connection.scalars(columns)) == ["absent", "settled", "estimated"]


def test_a_losing_attempt_costs_us_and_charges_nobody(database_url: str) -> None:
    lost = an_event(attempt=1, winner=False)
    won = an_event(attempt=2)
    with a_ledger(database_url) as engine:
        usage.record(engine, [(lost, True), (won, True)])

        balances = ledger.balances(engine, "tenant_acme")
        assert balances["receivable/tenant_acme/team_support", "USD"] == won.charge_picos
        assert balances["provider/backend_eu", "USD"] == -2 * won.cost_picos
        assert sum(balances.values()) == 0


def test_money_that_is_not_what_its_card_says_is_refused_whole(database_url: str) -> None:
    wrong = [
        an_event("req_x", charge_picos=1),
        an_event("req_x", cost_picos=1),
        an_event("req_x", winner=False, charge_picos=5),
        an_event("req_x", v=99),
        an_event("req_x", currency="EUR"),
    ]
    with a_ledger(database_url) as engine:
        for event in wrong:
            with pytest.raises(UnfitEventError, match="req_x:1"):
                usage.record(engine, [(an_event("req_good"), True), (event, True)])
        assert _everything(engine)["rows"] == 0


def test_a_card_that_borrows_anothers_id_is_refused(database_url: str) -> None:
    forged = RateCard(CHARGE.id, "USD", COST.rates)
    with a_ledger(database_url) as engine:
        usage.record(engine, [(an_event("req_1"), True)])
        with pytest.raises(CardConflictError):
            usage.record(engine, [(an_event("req_2", charge_card=forged), True)])
        both = [an_event("req_3"), an_event("req_4", charge_card=forged)]
        with pytest.raises(CardConflictError):
            usage.record(engine, [(event, True) for event in both])
        assert _everything(engine)["rows"] == 1


def test_sums_beyond_64_bits_are_exact(database_url: str) -> None:
    dear = a_card(90_000_000_000_000, 1, "dear")
    events = [
        an_event(f"req_{n}", charge_card=dear, key_id=f"key_{n}", usage=Meters(input=100_003))
        for n in range(4)
    ]
    with a_ledger(database_url) as engine:
        usage.record(engine, [(event, True) for event in events])

        exact = 4 * 100_003 * 90_000_000_000_000
        assert exact > 2**63
        balances = ledger.balances(engine, "tenant_acme")
        assert balances["receivable/tenant_acme/team_support", "USD"] == exact
        assert balances["revenue/tenant_acme", "USD"] == -exact


def test_missing_names_the_events_the_ledger_has_not_seen(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        usage.record(engine, [(an_event("req_1"), True)])
        assert usage.missing(engine, ["req_1:1", "req_2:1"]) == {"req_2:1"}
        assert usage.missing(engine, []) == set()


def _everything(engine: Engine) -> dict[str, int]:
    with reading(engine) as connection:
        rows, charge = connection.execute(
            select(func.count(), func.coalesce(func.sum(usage_rows.c.charge_picos), 0))
        ).one()
        attempts, rolled_charge = connection.execute(
            select(func.sum(rolled.c.attempts), func.sum(rolled.c.charge_picos))
        ).one()
        posted = connection.scalar(select(func.count()).select_from(postings))
    return {
        "rows": rows,
        "charge": charge,
        "attempts": attempts,
        "rolled_charge": rolled_charge,
        "postings": posted,
    }
