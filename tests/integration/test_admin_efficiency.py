"""What a backend did with its time, as the admin API and `meterhouse tco` tell it."""

import argparse
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing.meters import Meters
from billing.observed import Work
from gateway import clock
from gateway.commands import tco
from gateway.stores.sql import usage
from tests.admin_server import TOKEN, AdminServer, Made, refused
from tests.ledger_events import a_card, an_event
from tests.working import worked

TCO = {"profile": "h100", "prefill_tokens_per_second": "6000", "decode_tokens_per_second": "250"}
HOUR_US = 3_600_000_000
COST = a_card(10**6, 10**7, "tco", "EUR")
CHARGE = a_card(2 * 10**6, 2 * 10**7, "list", "EUR")


def book(
    server: AdminServer, key: dict[str, Any], backend: dict[str, Any], works: Sequence[Work]
) -> int:
    """The attempts, in the ledger; when the first began. All of them within the last hours."""
    base_us = clock.now_us() // HOUR_US * HOUR_US - 3 * HOUR_US
    events = []
    for number, work in enumerate(works):
        used = Meters(input=work.prefilled, output=work.decoded)
        event = an_event(
            f"req_{backend['id']}_{number}",
            tenant_id=key["tenant_id"],
            team_path=(key["team_id"],),
            key_id=key["id"],
            backend_id=backend["id"],
            currency="EUR",
            admitted_at_us=base_us + work.started_us,
            finished_at_us=base_us + work.ended_us,
            ttft_us=work.content_us - work.started_us,
            duration_us=work.ended_us - work.started_us,
            usage=used,
            reported=used,
            counted=used,
            charge_card=CHARGE,
            cost_card=COST,
        )
        events.append((event, True))
    assert usage.record(server.engine, events) == len(events)
    return base_us


def organised(made: Made) -> dict[str, Any]:
    tenant = made.tenant(currency="EUR")
    return dict(made.key(made.team(tenant["id"])["id"]))


def test_fitted_rates_stand_beside_the_assumed_and_what_idles_has_an_account(
    admin_house: AdminServer,
    admin_client: httpx.Client,
    made: Made,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    since = {"tco_effective_from": "2026-01-01T00:00:00Z"}
    key, backend = organised(made), made.backend(tco=TCO | {"currency": "EUR"}, **since)
    works = worked(5, 90)
    base_us = book(admin_house, key, backend, works)
    span = {"from": clock.rfc3339(base_us), "to": clock.rfc3339(base_us + 2 * HOUR_US)}
    path = f"/backends/{backend['id']}/efficiency"

    told = admin_client.get(path, params=span).json()
    by_team = admin_client.get(path, params=span | {"spread": "busy"}).json()

    assert told["attempts"] == len(works)
    assert told["output_tokens"] == sum(each.decoded for each in works)
    took_us = sum(each.ended_us - each.started_us for each in works)
    assert Decimal(told["utilisation"]) == round(Decimal(took_us) / (2 * HOUR_US), 6)
    fitted, assumed = told["fitted"], told["assumed"]
    assert fitted["because"] == []
    assert 180 < Decimal(fitted["decode_tokens_per_second"]["middle"]) < 220
    assert (assumed["decode_tokens_per_second"], assumed["planned_utilisation"]) == ("250", "0.35")
    money = {name: Decimal(told["money"][name]) for name in ("actual", "absorbed", "variance")}
    assert money["actual"] == money["absorbed"] + money["variance"]
    cost = sum(each.prefilled * 10**6 + each.decoded * 10**7 for each in works)
    assert money["absorbed"] == Decimal(cost) / 10**12
    assert told["money"]["parts"] == [{"account": "idle", "amount": told["money"]["variance"]}]
    assert by_team["money"]["parts"] == [
        {"account": key["team_id"], "amount": told["money"]["variance"]}
    ]
    kwh, busy = Decimal(told["energy"]["kwh"]), Decimal(told["utilisation"])
    assert abs(kwh - 2 * (7 * busy + Decimal("2.4") * (1 - busy)) * Decimal("1.54")) < 1

    monkeypatch.setenv("METERHOUSE_ADMIN_URL", admin_house.url)
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
    parser = argparse.ArgumentParser()
    tco.add(parser.add_subparsers())
    asked = ["tco", "--backend", backend["name"], "--observed-from", span["from"]]
    assert tco.run(parser.parse_args(asked)) == 0
    words = capsys.readouterr().out
    assert "assumed 250" in words
    assert "tokens a second (80 % between" in words
    assert tco.run(parser.parse_args([*asked, "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["observed"]["attempts"] == len(works)


def test_a_box_costs_nothing_before_it_was_there(admin_client: httpx.Client, made: Made) -> None:
    backend = made.backend(tco=TCO | {"currency": "EUR"})

    told = admin_client.get(f"/backends/{backend['id']}/efficiency").json()

    made_us = clock.parse_rfc3339(backend["created_at"])
    to_us, minute_us = clock.parse_rfc3339(told["to"]), 60_000_000
    there_us = min(made_us - made_us % minute_us, to_us - minute_us)
    assert told["from"] == clock.rfc3339(there_us), "and not a day ago"


def test_a_box_costs_what_its_tco_says_since_that_begins(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    key, backend = organised(made), made.backend()
    base_us = book(admin_house, key, backend, [Work(0, 10**6, 90 * 60 * 10**6, 100, 0, 50)])
    span = {"from": clock.rfc3339(base_us), "to": clock.rfc3339(base_us + 2 * HOUR_US)}
    path = f"/backends/{backend['id']}"
    profile = TCO | {"currency": "EUR"}

    def seen() -> Any:
        return admin_client.get(f"{path}/efficiency", params=span).json()

    assert seen()["money"] is None
    late = admin_client.put(path, json=backend | {"tco": profile}).json()
    assert late["tco_effective_from"] > span["to"]
    assert (seen()["money"], seen()["energy"]) == (None, None)
    hour = {"tco_effective_from": clock.rfc3339(base_us + HOUR_US)}
    assert (
        admin_client.put(path, json=late | hour).json()["tco_effective_from"]
        == hour["tco_effective_from"]
    )
    told = seen()
    kept = admin_client.put(path, json=backend | {"tco": profile}).json()

    assert kept["tco_effective_from"] == hour["tco_effective_from"], "the same profile stays"
    assert (told["from"], told["money"]["from"]) == (span["from"], hour["tco_effective_from"])
    assert told["energy"]["from"] == hour["tco_effective_from"]
    assert Decimal(told["busy_seconds"]) == 90 * 60, "what it did is told of the whole span"
    whole = admin_client.put(path, json=late | {"tco_effective_from": "2026-01-01T00:00:00Z"})
    assert whole.is_success
    assert Decimal(told["money"]["actual"]) < Decimal(seen()["money"]["actual"])
    gone = admin_client.put(path, json=late | {"tco": None}).json()
    assert (gone["tco"], gone["tco_effective_from"]) == (None, None)
    odd = late | {"tco_effective_from": "yesterday"}
    refused(admin_client.put(path, json=odd), 422, "tco_effective_from")


def test_of_a_backend_that_did_next_to_nothing_nothing_is_claimed(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    backend = made.backend()
    book(admin_house, organised(made), backend, [Work(0, 100_000, 2_000_000, 100, 0, 50)])
    path = f"/backends/{backend['id']}/efficiency"

    told = admin_client.get(path).json()

    assert told["fitted"]["prefill_tokens_per_second"] is None
    assert told["fitted"]["because"] == ["it was busy in 1 minutes; 60 are needed"]
    assert (told["busy_seconds"], told["output_tokens_per_second"]) == ("2", "25")
    assert (told["money"], told["energy"], told["assumed"]) == (None, None, None)
    refused(admin_client.get(path, params={"from": "2999-01-01T00:00:00Z"}), 422, "from")
    refused(admin_client.get(path, params={"from": "2020-01-01T00:00:00Z"}), 422, "from")
