"""Usage, invoices, imported prices and status, asked for as an operator would: over HTTP."""

import csv
import io
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from litestar.testing import TestClient
from sqlalchemy import Engine

from billing.invoices import COLUMNS
from billing.meters import Meters
from gateway import clock
from gateway.admin import status
from gateway.admin.api import create_app
from gateway.admin.deps import AdminDeps
from gateway.keyring import Peppers
from gateway.stores.redis import address, workers
from gateway.stores.redis.channel import Channels
from gateway.stores.sql import configuration, usage
from gateway.stores.sql.seal import Sealer
from policies.latency import bucket_of
from tests.holding import open_channels
from tests.ledger_events import NOON_US, a_ledger, an_event
from tests.running import run

NOVEMBER = {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
ACME = "tenant_acme"


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    with a_ledger(sqlite_url) as engine:
        yield engine


@pytest.fixture
def api(engine: Engine, store_url: str) -> Iterator[TestClient]:
    async def publish(_revision: int) -> None:
        return

    async def account(_tag: str, _key: str) -> None:
        return None

    store = Channels(address.parse(store_url))

    async def connect() -> None:
        await store.open()

    deps = AdminDeps(
        engine=engine,
        admin_token="token",
        peppers=Peppers(current=1, by_version={1: b"p" * 32}),
        sealer=Sealer(b"s" * 32),
        publish=publish,
        account=account,
        store=store,
    )
    app = create_app(deps)
    app.on_startup.append(connect)
    app.on_shutdown.append(store.close)
    with TestClient(app) as client:
        client.headers["authorization"] = "Bearer token"
        yield client


def test_usage_is_summed_by_what_is_asked(api: TestClient, engine: Engine) -> None:
    _record(engine, an_event("req_1"), an_event("req_2", tags={"app": "desk"}))

    answer = api.get("/admin/v1/usage", params=NOVEMBER | {"group_by": "team,day,tag:app"})

    assert answer.status_code == 200
    items = answer.json()["items"]
    assert [item["tag:app"] for item in items] == ["", "desk"]
    assert items[0] | {"tag:app": ""} == {
        "team": "team_support",
        "team_name": "Support",
        "day": "2026-11-21",
        "tag:app": "",
        "requests": 1,
        "attempts": 1,
        "input_tokens": 400,
        "cache_read_tokens": 600,
        "cache_write_tokens": 0,
        "output_tokens": 200,
        "uncharged_tokens": 0,
        "charge": "0.00438",
        "cost": "0.0036191358",
        "currency": "USD",
    }
    assert answer.json()["next"] is None


def test_usage_is_a_spreadsheet_where_that_is_preferred(api: TestClient, engine: Engine) -> None:
    _record(engine, an_event(model="=HYPERLINK(1)"))

    answer = api.get(
        "/admin/v1/usage",
        params=NOVEMBER | {"group_by": "model"},
        headers={"accept": "text/csv"},
    )

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    header, row = csv.reader(io.StringIO(answer.text))
    assert dict(zip(header, row, strict=True))["model"] == "'=HYPERLINK(1)"
    assert dict(zip(header, row, strict=True))["charge"] == "0.00438"


@pytest.mark.parametrize(
    ("params", "status", "field"),
    [
        ({"group_by": "colour"}, 422, "group_by"),
        ({"group_by": "team,team"}, 422, "group_by"),
        ({"from": "yesterday"}, 422, "from"),
        ({"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, 422, "from"),
        ({"since": "2026-11-02T00:00:00Z"}, 400, "since"),
    ],
)
def test_a_question_that_cannot_be_meant_names_the_field(
    api: TestClient, params: dict[str, str], status: int, field: str
) -> None:
    answer = api.get("/admin/v1/usage", params=params)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["field"] == field


def test_requests_are_listed_with_every_attempt_and_both_counts(
    api: TestClient, engine: Engine
) -> None:
    _record(engine, an_event("req_1", attempt=1, winner=False), an_event("req_1", attempt=2))
    _record(engine, an_event("req_2", admitted_at_us=NOON_US + 1))

    first = api.get("/admin/v1/usage/requests", params=NOVEMBER | {"limit": 1}).json()
    second = api.get(
        "/admin/v1/usage/requests", params=NOVEMBER | {"limit": 1, "cursor": first["next"]}
    ).json()

    (request,) = first["items"]
    assert request["request_id"] == "req_1"
    assert [attempt["winner"] for attempt in request["attempts"]] == [False, True]
    assert (request["charge"], request["cost"]) == ("0.00438", "0.0072382716")
    assert request["attempts"][1]["reported"]["cache_read"] == 600
    assert request["attempts"][1]["counted"]["input"] == 1001
    assert [item["request_id"] for item in second["items"]] == ["req_2"]
    assert second["next"] is None


def test_a_months_invoice_adds_up_to_its_total(api: TestClient, engine: Engine) -> None:
    body = {"tenant_id": _real_tenant(api), "period": "2026-11"}
    events = [
        an_event(
            f"req_{n}",
            tenant_id=body["tenant_id"],
            usage=Meters(input=n * 7, cache_read=n, output=n * 3),
        )
        for n in range(1, 50)
    ]
    _record(engine, *events)

    made = api.post("/admin/v1/invoices", json=body)
    again = api.post("/admin/v1/invoices", json=body)
    lines = api.get(f"/admin/v1/invoices/{made.json()['id']}/lines.csv")

    assert made.status_code == 201
    assert made.json() | {"id": "", "created_at": ""} == {
        "id": "",
        "tenant_id": body["tenant_id"],
        "period": "2026-11",
        "number": None,
        "status": "draft",
        "currency": "USD",
        "total": made.json()["total"],
        "period_start": "2026-10-31T23:00:00Z",
        "period_end": "2026-11-30T23:00:00Z",
        "created_at": "",
        "kind": "invoice",
        "exchange": None,
        "early": False,
        "remarks": made.json()["remarks"],
        **dict.fromkeys(
            ("credits_invoice", "reason", "issued_at", "voided_at", "void_reason", "content_sha256")
        ),
    }
    assert again.json() == made.json()
    assert made.headers["etag"] == again.headers["etag"] == '"1"'
    table = list(csv.DictReader(io.StringIO(lines.text)))
    assert tuple(table[0]) == COLUMNS
    assert sum(Decimal(row["amount"]) for row in table) == Decimal(made.json()["total"])
    assert lines.headers["content-type"] == "text/csv; charset=utf-8"
    assert int(lines.headers["content-length"]) == len(lines.content)


def test_invoices_are_listed_read_and_thrown_away(api: TestClient) -> None:
    tenant_id = _real_tenant(api)
    made = [
        api.post("/admin/v1/invoices", json={"tenant_id": tenant_id, "period": period}).json()
        for period in ("2026-09", "2026-10", "2026-11")
    ]

    page = api.get("/admin/v1/invoices", params={"tenant_id": tenant_id, "limit": 2}).json()
    rest = api.get("/admin/v1/invoices", params={"cursor": page["next"]}).json()
    one = f"/admin/v1/invoices/{made[0]['id']}"

    assert page["items"] + rest["items"] == made
    assert api.get(one).json() == made[0]
    assert api.delete(one, headers={"if-match": '"7"'}).status_code == 412
    assert api.delete(one, headers={"if-match": '"1"'}).status_code == 204
    assert api.get(one).status_code == 404
    assert api.get(f"{one}/lines.csv").status_code == 404


def test_an_invoice_for_nobody_or_for_no_month_is_refused(api: TestClient) -> None:
    nobody = {"tenant_id": f"tenant_{'0' * 26}", "period": "2026-11"}
    assert api.post("/admin/v1/invoices", json=nobody).json()["errors"][0]["field"] == "tenant_id"
    no_month = nobody | {"period": "2026-13"}
    assert api.post("/admin/v1/invoices", json=no_month).json()["errors"][0]["field"] == "period"


def test_a_month_that_has_not_begun_where_the_tenant_is_has_no_draft(api: TestClient) -> None:
    tenant_id = _real_tenant(api)
    here = datetime.now(ZoneInfo("Europe/Berlin"))
    this_month = here.strftime("%Y-%m")
    next_month = (here.replace(day=1) + timedelta(days=32)).strftime("%Y-%m")

    begun = api.post("/admin/v1/invoices", json={"tenant_id": tenant_id, "period": this_month})
    ahead = api.post("/admin/v1/invoices", json={"tenant_id": tenant_id, "period": next_month})

    assert begun.status_code == 201
    assert ahead.status_code == 422
    (fault,) = ahead.json()["errors"]
    assert fault["field"] == "period"
    assert "has not begun" in fault["message"]
    assert len(api.get("/admin/v1/invoices").json()["items"]) == 1


def test_imported_prices_are_drafts_until_they_are_approved(
    api: TestClient, engine: Engine
) -> None:
    answer = api.post(
        "/admin/v1/prices/import",
        json={"provider": "anthropic", "model": "claude-opus-5-5", "as_model": "opus"},
    )

    assert answer.status_code == 201
    drafts = answer.json()["items"]
    assert {draft["meter"]: draft["amount_per_million"] for draft in drafts} == {
        "input": "4",
        "cache_read": "0.2",
        "cache_write_5m": "5",
        "cache_write_1h": "8",
        "output": "20",
    }
    assert {draft["state"] for draft in drafts} == {"draft"}
    assert drafts[0]["source"].startswith("genai-prices 0.2.3 sha256:")
    assert configuration.load(engine).prices == ()

    approved = api.post(f"/admin/v1/prices/{drafts[0]['id']}/approve")
    assert approved.json()["state"] == "approved"
    assert [price.id for price in configuration.load(engine).prices] == [drafts[0]["id"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "no-such-model"}, "model"),
        ({"model": "gpt-4o", "book": "cost"}, "backend_id"),
        ({"model": "gpt-4o", "upstream_model": "x"}, "upstream_model"),
        ({"model": "gpt-4o", "tenant_id": f"tenant_{'0' * 26}"}, "tenant_id"),
    ],
)
def test_an_import_that_cannot_be_meant_is_refused(
    api: TestClient, body: dict[str, str], field: str
) -> None:
    answer = api.post("/admin/v1/prices/import", json={"provider": "openai"} | body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_status_merges_what_the_workers_see(api: TestClient, store_url: str) -> None:
    now_us = clock.now_us()
    for worker, slow_ms, breaker in (("a", 100, "closed"), ("b", 300, "open")):
        seen = workers.BackendReport(
            backend_id="backend_eu",
            upstream_model="smol",
            breaker=breaker,
            in_flight=2,
            in_flight_tokens=50,
            ttft={bucket_of(slow_ms * 1000): 50},
            tpot={},
            total={},
        )
        report = workers.Report(
            worker=worker,
            version="0",
            at_us=now_us,
            started_us=now_us,
            revision=1,
            in_flight=2,
            unsettled=0,
            backends=(seen,),
        )
        run(_publish(store_url, report))

    status = api.get("/admin/v1/status").json()

    (backend,) = status["backends"]
    assert (backend["breaker"], backend["in_flight"]) == ("open", 4)
    assert backend["ttft_ms"]["samples"] == 100
    assert backend["ttft_ms"]["p50"] == pytest.approx(100, rel=0.02)
    assert backend["ttft_ms"]["p95"] == pytest.approx(300, rel=0.02)
    assert backend["total_ms"] == {"p50": None, "p95": None, "p99": None, "samples": 0}
    assert [worker["worker"] for worker in status["workers"]] == ["a", "b"]
    assert status["stores"]["database"]["ok"]
    assert status["stores"]["redis"]["ok"]
    assert status["queues"] == [
        {
            "tag": "s00",
            "journal_entries": 0,
            "journal_oldest": None,
            "quarantined": 0,
            "aside": [],
            "holds": 0,
        }
    ]


def test_status_answers_while_the_store_is_down(engine: Engine, tmp_path: Path) -> None:
    async def read() -> status.StatusView:
        return await status.read(engine, Channels(address.parse(f"unix://{tmp_path}/none.sock")))

    found = run(read())
    assert not found.stores["redis"].ok
    assert found.stores["database"].ok
    assert [backend.breaker for backend in found.backends] == ["unknown"]


async def _publish(url: str, report: workers.Report) -> None:
    async with open_channels(url) as channels:
        await workers.publish(channels, report)


def _record(engine: Engine, *events: object) -> None:
    usage.record(engine, [(event, True) for event in events])


def _real_tenant(api: TestClient) -> str:
    """A tenant with an id as the API makes them."""
    body = {"name": "Berlin", "currency": "USD", "timezone": "Europe/Berlin"}
    return str(api.post("/admin/v1/tenants", json=body).json()["id"])
