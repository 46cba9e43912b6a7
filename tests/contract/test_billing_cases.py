"""The acceptance cases of a month's close, with exact amounts, on both databases.

Numbered as in the list of cases that this ledger was built against. Prices unless said: input 3.00,
cache read 0.30, cache write 3.75, output 15.00 a million tokens.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from sqlalchemy import Engine, func, select, text

from billing.credit_notes import OverCreditedError
from billing.meters import Meter, Meters
from billing.money import format_picos
from billing.periods import month
from billing.prices import PriceBook, PriceVersion, Rate, picos_per_token, sealed_card
from billing.usage import UsageEvent
from gateway import clock
from gateway.backends.openai import OpenAI
from gateway.clock import parse_rfc3339
from gateway.stores.sql import (
    admin_tokens,
    cost_centers,
    drafts,
    issuing,
    keys,
    teams,
    usage_reports,
)
from gateway.stores.sql.draft_lines import PeriodClosedError
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoice_tables import team_places
from gateway.stores.sql.rows import AdminToken, Key, Team
from gateway.stores.sql.second_person import SecondPersonError
from gateway.stores.sql.tables import usage_rows
from gateway.stores.sql.usage import UnfitEventError
from tests.invoicing import (
    ACME,
    BHARAT,
    agree,
    book,
    credited,
    drafted,
    hundred,
    is_intact,
    issued,
    lines_of,
    month_of,
    october,
    total,
)  # fmt: skip
from tests.ledger_events import a_ledger


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def test_case_02_an_event_that_is_delivered_three_times_is_billed_once(engine: Engine) -> None:
    one = october("req_1")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda event: book(engine, event), [one, one]))
    invoice = issued(engine, drafted(engine))

    again = book(engine, one)
    elsewhere = book(engine, october("req_2", tenant_id=BHARAT, team_path=("team_labs",)))

    assert (again, elsewhere) == (0, 1)
    assert [line.amount_picos for line in lines_of(engine, drafted(engine, "2026-11"))] == []
    assert sum(line.amount_picos for line in lines_of(engine, invoice)[:3]) == one.charge_picos
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(usage_rows)) == 2


@pytest.mark.parametrize(
    "otherwise",
    [
        {"usage": Meters(input=9_999)},
        {"tenant_id": BHARAT, "team_path": ("team_labs",)},
        {"winner": False},
        {"backend_id": "backend_us"},
    ],
    ids=["tokens", "tenant", "winner", "backend"],
)
def test_case_02_what_says_otherwise_under_an_id_that_is_booked_is_refused_and_not_passed_over(
    engine: Engine, otherwise: dict[str, Any]
) -> None:
    one, other = october("req_1"), october("req_1", **otherwise)
    book(engine, one)

    for delivered in ([other], [october("req_2"), other], [one, other]):
        with pytest.raises(UnfitEventError, match="req_1:1 is booked, and says otherwise"):
            book(engine, *delivered)

    with reading(engine) as connection:
        of = usage_rows.c
        rows = connection.execute(select(of.tenant_id, of.charge_picos, of.winner)).all()
    assert rows == [(ACME, one.charge_picos, True)]


def test_case_04_a_price_holds_from_its_instant_and_never_before(engine: Engine) -> None:
    def price(amount: str, since: str, name: str) -> PriceVersion:
        subject = ("charge", "chat-default", None, None, None, Meter.INPUT)
        return PriceVersion(name, *subject, picos_per_token(amount), "USD", parse_rfc3339(since))

    versions = [price("3.00", "2026-01-01T00:00:00Z", "p_1")]
    versions += [price("2.00", "2026-10-15T00:00:00Z", "p_2")]

    def at(instant: str, request: str, known: list[PriceVersion]) -> UsageEvent:
        card = PriceBook(known).charge_card(ACME, "chat-default", parse_rfc3339(instant))
        million = Meters(input=1_000_000)
        return october(request, instant, charge_card=card, usage=million)

    book(engine, at("2026-10-14T23:59:59.999999Z", "req_1", versions))
    book(engine, at("2026-10-15T00:00:00Z", "req_2", versions))
    invoice = issued(engine, drafted(engine))
    known = [*versions, price("1.00", "2026-11-01T00:00:00Z", "p_3")]
    book(engine, at("2026-11-02T00:00:00Z", "req_3", known))

    amounts = [format_picos(line.amount_picos) for line in lines_of(engine, invoice)]
    assert sorted(amounts) == ["2", "3"]
    assert total(invoice) == "5.00"
    assert is_intact(engine, invoice) is True
    assert total(drafted(engine, "2026-11")) == "1.00"


@pytest.mark.parametrize(("price", "expected"), [(490_000, "49.00"), (510_000, "51.00")])
def test_case_05_ten_thousand_small_calls_are_rounded_once(
    engine: Engine, price: int, expected: str
) -> None:
    card = sealed_card("USD", [Rate(Meter.INPUT, price, "p")])
    call: dict[str, Any] = {"charge_card": card, "usage": Meters(input=10_000)}
    book(engine, *(october(f"req_{n}", **call) for n in range(10_000)))

    assert total(drafted(engine)) == expected


def test_case_05_three_thirds_add_up_on_the_page_and_are_credited_to_nothing(
    engine: Engine,
) -> None:
    with transaction(engine) as connection:
        for n in "123":
            team = Team(id=f"team_{n}", tenant_id=ACME, name=n, cost_center=f"CC-{n}")
            teams.RECORDS.add(connection, team)
    card = sealed_card("USD", [Rate(Meter.INPUT, 335_000, "p")])
    third: dict[str, Any] = {"charge_card": card, "usage": Meters(input=1_000_000)}
    book(engine, *(october(f"req_{n}", team_path=(f"team_{n}",), **third) for n in "123"))

    invoice = issued(engine, drafted(engine))
    lines = lines_of(engine, invoice)
    note = credited(engine, invoice, 101)

    assert total(invoice) == "1.01"
    assert [line.amount_minor for line in lines] == [34, 34, 33, 0]
    assert [format_picos(line.amount_picos) for line in lines][:3] == ["0.335"] * 3
    assert total(note) == "-1.01"
    with pytest.raises(OverCreditedError, match=r"0\.00 USD"):
        credited(engine, invoice, 1)


def test_case_07_usage_that_comes_too_late_is_corrected_on_the_next_invoice(
    engine: Engine,
) -> None:
    last_minute = "2026-10-31T22:59:00Z"  # 23:59 in Berlin
    book(engine, october("req_1"))
    draft = drafted(engine)
    book(engine, october("req_within_grace", last_minute))
    invoice = issued(engine, draft)
    before = lines_of(engine, invoice)

    late = october("req_late", last_minute)
    book(engine, late)
    november = drafted(engine, "2026-11")
    corrections = lines_of(engine, november)[:-1]

    assert sum(line.amount_picos for line in before[:-1]) == 2 * late.charge_picos
    assert lines_of(engine, invoice) == before
    assert is_intact(engine, invoice) is True
    assert sum(line.amount_picos for line in corrections) == late.charge_picos
    assert {line.corrects_invoice for line in corrections} == {invoice.number}
    assert {(line.period_start_us, line.period_end_us) for line in corrections} == {
        (invoice.period_start_us, invoice.period_end_us)
    }
    with pytest.raises(PeriodClosedError):
        drafted(engine)


def test_case_07_grace_keeps_a_month_open(engine: Engine) -> None:
    agree(engine, grace_days=60_000)
    draft = drafted(engine)

    with pytest.raises(issuing.StandingError, match="may come until"):
        issued(engine, draft)
    assert issued(engine, draft, early=True).status == "issued"


def test_case_07_grace_ends_so_many_days_after_the_month_and_not_a_day_sooner(
    engine: Engine,
) -> None:
    """The month ended at 23:00Z; of whole days since then the last one is over, the next is not."""
    draft = drafted(engine)
    day_us = 86_400_000_000
    since = (clock.now_us() - draft.period_end_us) // day_us

    agree(engine, grace_days=since + 1)
    ends = clock.rfc3339(draft.period_end_us + (since + 1) * day_us)
    with pytest.raises(issuing.StandingError, match=f"may come until {ends}"):
        issued(engine, draft)
    agree(engine, grace_days=since)

    assert issued(engine, draft).status == "issued"


def test_case_08_a_month_in_berlin_has_its_own_hours(engine: Engine) -> None:
    invoice = drafted(engine)
    assert invoice.period_start_us == parse_rfc3339("2026-09-30T22:00:00Z")
    assert invoice.period_end_us == parse_rfc3339("2026-10-31T23:00:00Z")
    assert (invoice.period_end_us - invoice.period_start_us) == 745 * 3_600_000_000

    book(engine, october("req_1", "2026-10-31T23:30:00Z"))
    kolkata: dict[str, Any] = {
        "tenant_id": BHARAT,
        "team_path": ("team_labs",),
        "key_id": "key_lab",
    }
    book(engine, october("req_2", "2026-10-31T18:29:59Z", **kolkata))
    book(engine, october("req_3", "2026-10-31T18:30:00Z", **kolkata))

    assert lines_of(engine, drafted(engine)) == []
    assert len(lines_of(engine, drafted(engine, "2026-11"))) == 4
    days = {"2026-10": 200, "2026-11": 200}
    for period, output in days.items():
        lines = lines_of(engine, drafted(engine, period, BHARAT))
        assert [line.quantity for line in lines if line.meter == "output"] == [output]


def test_case_13_a_team_that_moves_takes_no_history_with_it(engine: Engine) -> None:
    moved = parse_rfc3339("2026-10-15T22:00:00Z")  # midnight of the 16th in Berlin
    book(engine, october("req_1", "2026-10-15T21:59:59Z"), october("req_2", clock.rfc3339(moved)))
    with transaction(engine) as connection:
        row = {"team_id": "team_eu", "until_us": moved, "tenant_id": ACME, "cost_center": "CC-100"}
        connection.execute(team_places.insert().values(**row))
        connection.execute(text("UPDATE teams SET cost_center = 'CC-200' WHERE id = 'team_eu'"))

    lines = [line for line in lines_of(engine, drafted(engine)) if line.line_kind == "usage"]
    as_was, as_is = (by_center(engine, name) for name in ("cost_center", "cost_center_now"))
    invoice = issued(engine, drafted(engine))
    with transaction(engine) as connection:
        connection.execute(text("UPDATE teams SET cost_center = 'Renamed', name = 'Moved' || id"))

    once = october("req_1").charge_picos
    assert as_was == {"CC-100": once, "CC-200": once}
    assert as_is == {"CC-200": 2 * once}
    assert {line.cost_center for line in lines} == {"CC-100", "CC-200"}
    assert sum(line.amount_picos for line in lines) == 2 * once
    assert is_intact(engine, invoice) is True
    assert lines_of(engine, invoice)[:-1] == lines


def test_case_13_a_change_counts_from_the_next_quarter_of_an_hour(engine: Engine) -> None:
    with transaction(engine) as connection:
        before = teams.RECORDS.one(connection, id="team_eu")
        assert before is not None
        now_us = clock.now_us()
        for center in ("CC-200", "CC-300"):
            after = msgspec.structs.replace(before, cost_center=center)
            cost_centers.note_change(connection, before, after)
            teams.RECORDS.replace(connection, after)
            before = after
        known = cost_centers.CostCenters(connection, ACME)

    (first, *_), *_ = known.spans(now_us, now_us + 10**12)[1:]
    assert now_us <= first <= now_us + 2 * 900_000_000
    assert first % 900_000_000 == 0
    assert known.at("team_support", now_us - 1) == "CC-100"
    assert known.at("team_support", now_us + 10**12) == known.now("team_support") == "CC-300"


def test_case_13_a_centre_that_is_renamed_and_an_app_that_moves_change_no_total(
    engine: Engine,
) -> None:
    """An app moves by a key of its own in the other team: a key stays with its team."""
    book(engine, october("req_1"))
    invoice = issued(engine, drafted(engine))
    with transaction(engine) as connection:
        row = Team(id="team_new", tenant_id=ACME, name="New home", cost_center="CC-900")
        teams.RECORDS.add(connection, row)
        key = Key(id="key_new", tenant_id=ACME, team_id="team_new", name="bot")
        keys.RECORDS.add(connection, key)
        before = teams.RECORDS.one(connection, id="team_eu")
        assert before is not None
        renamed = msgspec.structs.replace(before, cost_center="CC-100-EUROPE")
        cost_centers.note_change(connection, before, renamed)
        teams.RECORDS.replace(connection, renamed)
    moved = {"key_id": "key_new", "team_path": ("team_new",)}
    book(engine, october("req_2", **moved))

    as_was, as_is = (by_center(engine, name) for name in ("cost_center", "cost_center_now"))
    once = october("req_1").charge_picos
    assert as_was == {"CC-100": once, "CC-900": once}
    assert as_is == {"CC-100-EUROPE": once, "CC-900": once}
    assert {line.cost_center for line in lines_of(engine, invoice)} == {"CC-100", ""}
    assert is_intact(engine, invoice) is True


def by_center(engine: Engine, name: str) -> dict[str, int]:
    whole = month("2026-10", ZoneInfo("Europe/Berlin"))
    asked = usage_reports.Question(
        start_us=whole.start_us, end_us=whole.end_us, group_by=(name,), filters={"tenant_id": ACME}
    )
    return {group.by[0]: group.charge_picos for group in usage_reports.report(engine, asked)}


def test_a_month_is_billed_once_however_often_it_is_issued_early(engine: Engine) -> None:
    now_us = clock.now_us()
    period = month_of(now_us)
    book(engine, october("req_1", clock.rfc3339(now_us)))
    with pytest.raises(issuing.StandingError, match="early"):
        issued(engine, drafted(engine, period))
    first = issued(engine, drafted(engine, period), early=True)
    book(engine, october("req_2", clock.rfc3339(now_us)))
    second = drafted(engine, period)

    assert (first.early, second.id != first.id) == (True, True)
    assert second.span == first.span
    charges = [
        sum(line.amount_picos for line in lines_of(engine, each) if line.line_kind == "usage")
        for each in (first, second)
    ]
    assert charges == [october("req").charge_picos] * 2
    assert {line.corrects_invoice for line in lines_of(engine, second)} == {None}


def test_what_a_voided_invoice_billed_is_billed_again(engine: Engine) -> None:
    invoice = hundred(engine)
    with transaction(engine) as connection:
        voided = issuing.void(connection, issuing.locked(connection, invoice), "wrong address")

    again = issued(engine, drafted(engine))

    assert (voided.status, voided.number) == ("voided", "INV-000001")
    assert (total(again), again.number) == ("100.00", "INV-000002")
    assert is_intact(engine, voided) is True


def test_another_time_zone_leaves_no_hour_out_and_bills_none_twice(engine: Engine) -> None:
    invoice = issued(engine, drafted(engine))
    with transaction(engine) as connection:
        connection.execute(text("UPDATE tenants SET timezone = 'America/New_York'"))

    november = drafted(engine, "2026-11")

    assert november.period_start_us == invoice.period_end_us
    assert november.period_end_us == parse_rfc3339("2026-12-01T05:00:00Z")


def test_whoever_made_a_draft_does_not_issue_it_where_four_eyes_are_agreed(engine: Engine) -> None:
    agree(engine, four_eyes=True)
    with transaction(engine) as connection:
        token = AdminToken(
            id="adm_finance", name="f", role="finance", scope_kind="platform", scope_id=""
        )
        admin_tokens.RECORDS.add(connection, token)
    draft, _ = drafts.make_draft(engine, ACME, "2026-10", "adm_finance")
    again, _ = drafts.make_draft(engine, ACME, "2026-10", "adm_other")
    assert again == draft, "to look at a draft is not to make it"

    with pytest.raises(SecondPersonError, match="a colleague"):
        issued(engine, draft)
    with transaction(engine) as connection:
        assert issuing.issue(connection, draft, "adm_other", early=False).number is not None


def test_case_01_the_same_work_costs_the_same_however_it_is_counted(engine: Engine) -> None:
    inclusive = OpenAI().usage_of_answer(
        b'{"usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,'
        b' "prompt_tokens_details": {"cached_tokens": 600},'
        b' "completion_tokens_details": {"reasoning_tokens": 150}}}'
    )
    assert inclusive is not None
    apart = Meters(input=400, cache_read=600, output=200)
    assert (inclusive.meters, inclusive.reasoning) == (apart, 150)

    book(engine, october("req_1", usage=inclusive.meters), october("req_2", usage=apart))

    lines = lines_of(engine, drafted(engine))[:-1]
    assert [(line.meter, line.quantity) for line in lines] == [
        ("input", 800), ("cache_read", 1_200), ("output", 400),
    ]  # fmt: skip
    assert format_picos(sum(line.amount_picos for line in lines)) == "0.00876"
    assert format_picos(october("req_1").charge_picos) == "0.00438"
