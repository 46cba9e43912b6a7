"""What a box of our own cost beyond its tokens is booked: exact amounts, once, sealed, and no more
to be changed than any other row. On both databases.
"""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from billing.idle import Rule
from billing.meters import Meter, Meters, Provenance
from billing.money import format_picos
from billing.prices import Rate, sealed_card
from billing.tco import Profile
from gateway.clock import parse_rfc3339
from gateway.stores.sql import backends, books, idle_bookings
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.idle_bookings import NothingToBookError, Standing
from gateway.stores.sql.rows import Backend
from tests.invoicing import ACME, BHARAT, book, october
from tests.ledger_events import a_ledger
from tests.tampering import by_hand, faults_after

HOUR_US = 3_600_000_000
BOX = Profile(
    currency="USD",
    capex="0",
    life_years=4,
    cost_of_capital="0",
    power_busy_watts=0,
    power_idle_watts=0,
    pue="1",
    electricity_per_kwh="0",
    operations_per_year="0",
    rent_per_hour="12.52",
    planned_utilisation="0.5",
    prefill_tokens_per_second="1000",
)
LAST_HOUR = parse_rfc3339("2026-10-31T23:00:00Z")
COST = sealed_card("USD", [Rate(Meter.INPUT, 1_000_000, "tco")])  # 1.00 a million


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The box is there for the last hour of October: it costs 12.52."""
    with a_ledger(database_url) as engine:
        with transaction(engine) as connection:
            box = Backend(
                id="backend_rack", name="rack", dialect="openai", region="eu",
                base_url="http://127.0.0.1:1", tco=BOX, tco_from_us=LAST_HOUR,
            )  # fmt: skip
            backends.RECORDS.add(connection, box)
        yield engine


def work(
    engine: Engine, request: str, minutes: int, millions: str, *, news: int = 1, **whose: object
) -> None:
    """So many minutes of the hour, and tokens that bear so much of it at 1.00 a million. `news`:
    how many rows that makes; late truth is two.
    """
    at_us = LAST_HOUR + minutes * 60_000_000
    took_us = minutes * 60_000_000
    tokens = Meters(input=int(millions.replace(".", "")) * 10_000)
    times = {"admitted_at_us": at_us - took_us, "finished_at_us": at_us, "duration_us": took_us}
    event = october(
        request, **{"backend_id": "backend_rack", "cost_card": COST, "usage": tokens}
        | times | whose
    )  # fmt: skip
    assert book(engine, event) == news


LABS = {"tenant_id": BHARAT, "team_path": ("team_labs",), "key_id": "key_lab"}


def booked(engine: Engine, rule: Rule = "platform", period: str = "2026-10") -> Standing:
    with transaction(engine) as connection:
        box = backends.RECORDS.one(connection, id="backend_rack")
        assert box is not None
        busy_us = idle_bookings.busy_in(connection, box, period)
        return idle_bookings.book(connection, box, period, rule, busy_us, "adm_finance")


def balances(engine: Engine) -> dict[str, str]:
    """Of the box's accounts and of who bears it, whatever tenant they are of."""
    query = text("SELECT account, tenant_id, amount_picos FROM postings WHERE kind <> 'charge'")
    sums: dict[str, int] = {}
    with reading(engine) as connection:
        for account, _, picos in connection.execute(query):
            sums[account] = sums.get(account, 0) + int(picos)
        assert books.check(connection).faults == ()
    assert sum(sums.values()) == 0
    return {account: format_picos(picos) for account, picos in sorted(sums.items()) if picos}


def test_case_12_what_a_box_cost_beyond_its_tokens_is_on_an_account_of_its_own(
    engine: Engine,
) -> None:
    work(engine, "req_a", 18, "3.76")
    work(engine, "req_b", 12, "2.50", **LABS)

    found = booked(engine)

    assert format_picos(found.money.actual_picos) == "12.52"
    assert format_picos(found.money.variance_picos) == "6.26"
    assert balances(engine) == {
        "cost_of_service/tenant_acme/team_support": "3.76",
        "cost_of_service/tenant_bharat/team_labs": "2.5",
        "idle/backend_rack": "6.26",
        "provider/backend_rack": "-12.52",
    }


def test_case_12_or_is_borne_by_the_teams_as_long_as_they_were_busy(engine: Engine) -> None:
    """30 and 20 of a hundred parts: 7.512 and 5.008, printed 7.51 and 5.01."""
    work(engine, "req_a", 18, "3.75")
    work(engine, "req_b", 12, "2.50", **LABS)

    booked(engine, "busy")

    assert balances(engine) == {
        "cost_of_service/tenant_acme/team_support": "7.512",
        "cost_of_service/tenant_bharat/team_labs": "5.008",
        "provider/backend_rack": "-12.52",
    }
    for tenant in (ACME, BHARAT):
        with reading(engine) as connection:
            query = text("SELECT amount_picos FROM postings WHERE tenant_id = :t AND kind = 'idle'")
            mine = [int(row.amount_picos) for row in connection.execute(query, {"t": tenant})]
        assert len(mine) == 2
        assert sum(mine) == 0, "a tenant's own journal adds up"


def test_case_12_an_hour_with_nobody_keeps_its_cost(engine: Engine) -> None:
    booked(engine, "busy")

    assert balances(engine) == {"idle/backend_rack": "12.52", "provider/backend_rack": "-12.52"}


def test_a_month_is_booked_once_and_what_comes_late_is_a_row_of_its_own(engine: Engine) -> None:
    work(engine, "req_a", 18, "3.75")
    first, again = booked(engine), booked(engine)
    work(engine, "req_late", 12, "2.50")
    second = booked(engine)
    spread = booked(engine, "even")

    assert [row.number for row in again.booked] == [1]
    assert again.booked == first.booked
    assert [format_picos(part.picos) for part in second.booked[-1].parts] == ["-2.5"]
    assert [
        (part.team_id, format_picos(part.picos)) for part in spread.booked[-1].parts
    ] == [("", "-6.27"), ("team_support", "6.27")]  # fmt: skip
    assert spread.due == {}
    assert balances(engine) == {
        "cost_of_service/tenant_acme/team_support": "12.52",
        "provider/backend_rack": "-12.52",
    }


def test_what_bears_more_than_a_box_costs_is_booked_as_well(engine: Engine) -> None:
    work(engine, "req_a", 30, "20.00")

    booked(engine)

    assert balances(engine) == {
        "cost_of_service/tenant_acme/team_support": "20",
        "idle/backend_rack": "-7.48",
        "provider/backend_rack": "-12.52",
    }


def test_an_estimate_that_was_taken_back_makes_nobody_busier(engine: Engine) -> None:
    """18 and 12 of thirty minutes, however often they were told."""
    guess = {"hold": "estimated", "provenance": Provenance.ESTIMATED}
    work(engine, "req_a", 18, "3.75", **guess)
    work(engine, "req_a", 18, "3.75", news=2)
    work(engine, "req_b", 12, "2.50", **LABS)

    booked(engine, "busy")

    assert balances(engine) == {
        "cost_of_service/tenant_acme/team_support": "7.512",
        "cost_of_service/tenant_bharat/team_labs": "5.008",
        "provider/backend_rack": "-12.52",
    }


def test_a_month_has_what_was_admitted_in_it_in_the_currency_of_the_box(engine: Engine) -> None:
    """Beside it an hour of September, one of November, and one that is paid for in euros."""
    euros = sealed_card("EUR", [Rate(Meter.INPUT, 1_000_000, "e")])
    work(engine, "req_a", 18, "3.75")
    work(engine, "req_before", 18, "1.00", admitted_at_us=LAST_HOUR - 1)
    work(engine, "req_after", 18, "1.00", admitted_at_us=LAST_HOUR + HOUR_US)
    work(engine, "req_eur", 18, "1.00", currency="EUR", charge_card=euros, cost_card=euros)

    found = booked(engine, "busy")

    assert format_picos(found.money.absorbed_picos) == "3.75"
    assert [(part.team_id, format_picos(part.picos)) for part in found.booked[0].parts] == [
        ("team_support", "8.77")
    ]


def test_what_tokens_bore_before_the_box_had_its_profile_is_told_and_not_booked(
    engine: Engine,
) -> None:
    work(engine, "req_a", 18, "3.75")
    work(engine, "req_before", 18, "1.00", admitted_at_us=LAST_HOUR - 1)
    work(engine, "req_september", 18, "1.00", admitted_at_us=LAST_HOUR - 40 * 24 * HOUR_US)

    found = booked(engine)

    assert format_picos(found.before_picos) == "1"
    assert format_picos(found.money.variance_picos) == "8.77"


def test_a_month_that_runs_and_one_before_the_box_was_there_are_not_booked(engine: Engine) -> None:
    with pytest.raises(NothingToBookError, match="2999-01 is not over"):
        booked(engine, period="2999-01")
    with pytest.raises(NothingToBookError, match="counts since 2026-10-31T23:00:00Z"):
        booked(engine, period="2026-09")


def test_what_is_booked_in_one_currency_is_no_part_of_what_a_box_costs_in_another(
    engine: Engine,
) -> None:
    """12.52 dollars less 12.52 euros would be nothing at all."""
    booked(engine)
    with transaction(engine) as connection:
        box = backends.RECORDS.one(connection, id="backend_rack")
        assert box is not None
        backends.RECORDS.replace(connection, replace(box, tco=replace(BOX, currency="EUR")))

    with pytest.raises(NothingToBookError, match="2026-10 is booked in USD"):
        booked(engine)
    with reading(engine) as connection:
        assert books.check(connection).faults == ()


FROZEN = ("UPDATE idle_bookings SET actual_picos = 0", "DELETE FROM idle_bookings")
SAME = (
    "backend_id, period, rule, currency, from_us, to_us, busy_us, actual_picos, absorbed_picos,"
    " parts, profile, booked_by, created_at_us"
)
CHAIN = "ledger chain idle, block 1"
TAMPERED = {
    "DELETE FROM idle_bookings": f"{CHAIN}: 0 records where 1 were sealed",
    "UPDATE idle_bookings SET busy_us = busy_us + 1": CHAIN,
    "UPDATE idle_bookings SET booked_by = 'adm_other'": CHAIN,
    "UPDATE idle_bookings SET absorbed_picos = absorbed_picos + 1": "in 2026-10: 8.76 is booked of",
    "UPDATE idle_bookings SET profile = replace(profile, '12.52', '12.53')": (
        "what the box cost does not follow from its profile"
    ),
    "UPDATE postings SET amount_picos = 2 * amount_picos WHERE kind = 'idle'": (
        "its postings are not those that follow from it"
    ),
    f"INSERT INTO idle_bookings (id, number, {SAME})"
    f" SELECT 'idle_2', 2, {SAME} FROM idle_bookings": (
        "there are 2 idle bookings, and 1 were sealed"
    ),
}


def test_what_is_booked_stays_and_what_is_changed_behind_the_triggers_is_found(
    engine: Engine,
) -> None:
    work(engine, "req_a", 18, "3.76")
    booked(engine)

    for statement in FROZEN:
        with pytest.raises(DBAPIError, match="never changes"):
            by_hand(engine, statement)
    for statement, words in TAMPERED.items():
        told = faults_after(engine, statement)
        assert any(words in each for each in told), (statement, told)
    assert balances(engine)["idle/backend_rack"] == "8.76"
