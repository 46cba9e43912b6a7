"""Usage by anything: rollups and rows give the same answer, days are the tenant's own."""

import pytest
from sqlalchemy import Engine

from billing.meters import Meters, Provenance
from gateway.clock import parse_rfc3339
from gateway.stores.sql import usage, usage_reports, usage_requests
from gateway.stores.sql.usage_reports import Group, Question
from tests.ledger_events import NOON_US, a_card, a_ledger, an_event

DAY_US = 24 * 3_600_000_000
EVER = {"start_us": NOON_US - 30 * DAY_US, "end_us": NOON_US + 30 * DAY_US}


def test_groups_carry_exact_sums_of_winners_and_the_cost_of_all(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        _record(engine, an_event(attempt=1, winner=False), an_event(attempt=2))
        _record(engine, an_event("req_2", usage=Meters(7, 1, 2, 3, 11), model="embed"))

        by_model = usage_reports.report(engine, Question(**EVER, group_by=("model",)))

    one = an_event()
    chat, embed = by_model
    assert (chat.by, chat.requests, chat.attempts) == (("chat-default",), 1, 2)
    assert (chat.charge_picos, chat.cost_picos) == (one.charge_picos, 2 * one.cost_picos)
    assert (chat.input_tokens, chat.output_tokens, chat.uncharged_tokens) == (400, 200, 1200)
    assert embed.by == ("embed",)
    assert (embed.cache_read_tokens, embed.cache_write_tokens, embed.output_tokens) == (1, 5, 11)


@pytest.mark.parametrize(
    "group_by",
    [
        (),
        ("tenant",),
        ("team", "key"),
        ("model", "backend", "region"),
        ("provenance",),
        ("day",),
        ("hour", "model"),
    ],
)
def test_rollups_and_rows_answer_alike(database_url: str, group_by: tuple[str, ...]) -> None:
    with a_ledger(database_url) as engine:
        _record(engine, *_a_week_of_events())

        from_rollups = usage_reports.report(engine, Question(**EVER, group_by=group_by))
        cut = {**EVER, "start_us": EVER["start_us"] + 1}
        from_rows = usage_reports.report(engine, Question(**cut, group_by=group_by))

    assert from_rollups == from_rows
    assert sum(group.requests for group in from_rows) == 63
    assert sum(group.charge_picos for group in from_rows) == sum(
        event.charge_picos for event in _a_week_of_events()
    )


def test_a_day_is_a_day_of_the_tenants_own_zone(database_url: str) -> None:
    late = parse_rfc3339("2026-11-21T23:30:00Z")  # 00:30 in Berlin, 05:00 in Kolkata
    early = parse_rfc3339("2026-11-21T18:29:59Z")  # 19:29 in Berlin, 23:59 in Kolkata
    kolkata = {"tenant_id": "tenant_bharat", "team_path": ("team_labs",)}
    with a_ledger(database_url) as engine:
        _record(engine, an_event("req_1", admitted_at_us=late))
        _record(engine, an_event("req_2", admitted_at_us=early))
        _record(engine, an_event("req_3", admitted_at_us=late, **kolkata))
        _record(engine, an_event("req_4", admitted_at_us=early, **kolkata))

        days = usage_reports.report(engine, Question(**EVER, group_by=("tenant", "day")))
        hours = usage_reports.report(engine, Question(**EVER, group_by=("tenant", "hour")))

    assert [group.by for group in days] == [
        ("tenant_acme", "2026-11-21"),
        ("tenant_acme", "2026-11-22"),
        ("tenant_bharat", "2026-11-21"),
        ("tenant_bharat", "2026-11-22"),
    ]
    assert [group.by[1] for group in hours] == [
        "2026-11-21T18:00:00Z",
        "2026-11-21T23:00:00Z",
        "2026-11-21T17:30:00Z",
        "2026-11-21T23:30:00Z",
    ]


def test_an_hour_shown_twice_by_the_clock_is_two_hours(database_url: str) -> None:
    first = parse_rfc3339("2026-10-25T00:30:00Z")  # 02:30 summer time in Berlin
    second = parse_rfc3339("2026-10-25T01:30:00Z")  # 02:30 winter time
    with a_ledger(database_url) as engine:
        _record(engine, an_event("req_1", admitted_at_us=first))
        _record(engine, an_event("req_2", admitted_at_us=second))
        hours = usage_reports.report(engine, Question(**EVER, group_by=("hour",)))

    assert [group.by for group in hours] == [
        ("2026-10-25T00:00:00Z",),
        ("2026-10-25T01:00:00Z",),
    ]


def test_tags_group_and_requests_without_the_tag_stand_apart(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        _record(engine, an_event("req_1", tags={"app.v-1": "desk", "env": "a"}))
        _record(engine, an_event("req_2", tags={"app.v-1": 'say "hi"'}))
        _record(engine, an_event("req_3"))
        found = usage_reports.report(
            engine, Question(**EVER, group_by=("tag:app.v-1", "tag:env", "model"))
        )

    assert [group.by for group in found] == [
        ("", "", "chat-default"),
        ("desk", "a", "chat-default"),
        ('say "hi"', "", "chat-default"),
    ]


def test_filters_narrow_and_an_empty_ledger_has_no_groups(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        assert usage_reports.report(engine, Question(**EVER)) == []
        _record(engine, *_a_week_of_events())
        filters = {"key_id": "key_bot", "model": "model_1"}
        found = usage_reports.report(engine, Question(**EVER, filters=filters))
        none = usage_reports.report(engine, Question(**EVER, filters={"team_id": "team_x"}))

    assert [type(group) for group in found] == [Group]
    assert found[0].requests == sum(
        event.winner and event.key_id == "key_bot" and event.model == "model_1"
        for event in _a_week_of_events()
    )
    assert none == []


def test_the_span_is_half_open(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        _record(engine, an_event("req_1", admitted_at_us=NOON_US - 1))
        _record(engine, an_event("req_2", admitted_at_us=NOON_US))
        _record(engine, an_event("req_3", admitted_at_us=NOON_US + 5))

        def requests(start_us: int, end_us: int) -> int:
            found = usage_reports.report(engine, Question(start_us=start_us, end_us=end_us))
            return sum(group.requests for group in found)

        assert requests(NOON_US, NOON_US + DAY_US) == 2
        assert requests(NOON_US - DAY_US, NOON_US) == 1
        assert requests(NOON_US, NOON_US + 5) == 1


def test_two_currencies_are_never_added(database_url: str) -> None:
    euros = a_card(1, 1, "euro", currency="EUR")
    with a_ledger(database_url) as engine:
        _record(engine, an_event("req_1"))
        _record(engine, an_event("req_2", currency="EUR", charge_card=euros, cost_card=None))
        found = usage_reports.report(engine, Question(**EVER))
    assert [(group.currency, group.requests) for group in found] == [("EUR", 1), ("USD", 1)]


def test_requests_come_with_all_attempts_page_by_page(database_url: str) -> None:
    events = [an_event(f"req_{n}", admitted_at_us=NOON_US + n // 2) for n in range(5)]
    lost = an_event("req_2", attempt=0, winner=False, admitted_at_us=NOON_US + 1, reported=None)
    with a_ledger(database_url) as engine:
        _record(engine, *events, lost)

        pages, after = [], None
        while page := usage_requests.page(engine, **EVER, filters={}, after=after, limit=2):
            pages.append([[attempt.event_id for attempt in request] for request in page])
            after = (page[-1][0].admitted_at_us, page[-1][0].request_id)
        losers = usage_requests.page(
            engine, **EVER, filters={"request_id": "req_2"}, after=None, limit=9
        )

    assert pages == [
        [["req_0:1"], ["req_1:1"]],
        [["req_2:0", "req_2:1"], ["req_3:1"]],
        [["req_4:1"]],
    ]
    (attempts,) = losers
    assert [attempt.reported for attempt in attempts] == [None, events[2].reported]
    assert attempts[1].counted == events[2].counted
    assert attempts[1].usage == events[2].usage


def _record(engine: Engine, *events: object) -> None:
    usage.record(engine, [(event, True) for event in events])


def _a_week_of_events() -> list:
    return [
        an_event(
            f"req_{n}",
            winner=n % 10 != 3,
            tenant_id=("tenant_acme", "tenant_bharat")[n % 2],
            key_id=("key_bot", "key_lab", "key_x")[n % 3],
            model=f"model_{n % 4}",
            provenance=list(Provenance)[n % 3],
            admitted_at_us=NOON_US + n * 8_641_000_001,
            usage=Meters(n, n * 2, n * 3, n * 5, n * 7),
            cost_card=None if n % 6 == 0 else an_event().cost_card,
        )
        for n in range(70)
    ]
