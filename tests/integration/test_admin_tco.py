"""Hardware of one's own: a backend's `tco` becomes cost prices, and those cost a request."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from billing.boxes import BOXES
from billing.tco import cost_prices
from gateway.commands import documents
from gateway.commands.export import exported
from gateway.commands.reconcile import Reconciler
from gateway.commands.remote import Remote
from gateway.jobs import drain_journal
from gateway.wiring.jobs import open_jobs
from tests.admin_server import TOKEN, AdminServer, Made, admin_server, refused
from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

RATES = {"prefill_tokens_per_second": "34000", "decode_tokens_per_second": "6800"}
TCO = {"profile": "h100", **RATES}


def costs(client: httpx.Client, backend: dict[str, Any]) -> list[dict[str, Any]]:
    query = {"book": "cost", "backend_id": backend["id"]}
    return list(client.get("/prices", params=query).json()["items"])


def test_the_cost_prices_of_a_backend_follow_from_what_it_costs(
    admin_client: httpx.Client, made: Made
) -> None:
    backend = made.backend(tco=TCO)

    booked = costs(admin_client, backend)

    assert {each["meter"]: each["amount_per_million"] for each in booked} == {
        "input": "0.29234", "cache_read": "0.029234", "output": "1.461698"
    }  # fmt: skip
    assert {each["upstream_model"] for each in booked} == {None}
    assert all(each["source"].startswith("tco h100 sha256:") for each in booked)
    assert backend["tco"]["capex"] == BOXES["h100"].profile.capex
    audited = admin_client.get("/audit", params={"object_id": booked[0]["id"]}).json()["items"]
    assert [each["noun"] for each in audited] == ["prices"]


def test_another_profile_begins_another_price_and_the_same_none(
    admin_client: httpx.Client, made: Made
) -> None:
    backend = made.backend(tco=TCO)
    path, first = f"/backends/{backend['id']}", costs(admin_client, backend)

    assert admin_client.put(path, json=backend).status_code == 200
    assert costs(admin_client, backend) == first
    dearer = backend | {"tco": TCO | {"electricity_per_kwh": "0.24"}}
    assert admin_client.put(path, json=dearer).json()["tco"]["electricity_per_kwh"] == "0.24"

    later = [each for each in costs(admin_client, backend) if each not in first]
    assert {each["meter"] for each in later} == {"input", "cache_read", "output"}
    assert min(each["effective_from"] for each in later) > first[0]["effective_from"]
    gone = admin_client.put(path, json=backend | {"tco": None})
    assert gone.json()["tco"] is None
    assert len(costs(admin_client, backend)) == 6


@pytest.mark.parametrize(
    ("tco", "field", "remedy"),
    [
        ({"profile": "h999", **RATES}, "tco.profile", "h100, h200"),
        ({"profile": "h100"}, "tco.prefill_tokens_per_second", "measure it"),
        (RATES | {"capex": "1"}, "tco.power_busy_watts", "name a profile"),
        (TCO | {"planned_utilisation": "2"}, "tco.planned_utilisation", "such as 0.35"),
        (TCO | {"power_idle_watts": 9000}, "tco.power_idle_watts", "idle not above busy"),
        (TCO | {"salvage": "280001"}, "tco.salvage", "sells for"),
        (TCO | {"currency": "ABC"}, "tco.currency", "tenants"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_with_its_path_and_what_to_write(
    admin_client: httpx.Client, made: Made, tco: dict[str, Any], field: str, remedy: str
) -> None:
    body = {"name": made.name(), "base_url": "http://127.0.0.1:9/v1", "region": "eu-1", "tco": tco}

    answer = admin_client.post("/backends", json=body)

    refused(answer, 422, field)
    assert remedy in next(e for e in answer.json()["errors"] if e["field"] == field)["remedy"]


def test_a_currency_that_prices_are_in_stays(admin_client: httpx.Client, made: Made) -> None:
    backend = made.backend(tco=TCO)

    answer = admin_client.put(
        f"/backends/{backend['id']}", json=backend | {"tco": TCO | {"currency": "EUR"}}
    )

    refused(answer, 422, "tco.currency")
    assert len(costs(admin_client, backend)) == 3


DOCUMENT = """
kind: backend
name: rack
base_url: https://rack.example.com/v1
region: eu-1
placement: on_prem
tco: {profile: h100, prefill_tokens_per_second: 34000, decode_tokens_per_second: 6800.50}
"""


def test_a_box_in_a_document_is_applied_once_and_exported_with_its_figures(
    sqlite_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "rack.yaml"
    path.write_text(DOCUMENT)
    with admin_server(sqlite_url) as server, Remote(server.url, TOKEN) as remote:
        actions = [_applied(remote, path), _applied(remote, path)]
        (found,) = exported(remote)
        copy = tmp_path / "copy.yaml"
        copy.write_text(documents.write([found]))
        actions.append(_applied(remote, copy))

    assert actions == [["create"], ["unchanged"], ["unchanged"]]
    assert found["tco"]["decode_tokens_per_second"] == "6800.50"
    assert found["tco"]["capex"] == "280000"


def _applied(remote: Remote, path: Path) -> list[str]:
    reconciler = Reconciler(remote, dry_run=False)
    done = [step.action for step in reconciler.apply(documents.read([path]))]
    return done + [step.action for step in reconciler.prune()]


def test_the_command_explains_a_backend_and_what_if(
    admin_house: AdminServer,
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from gateway.__main__ import main

    backend = made.backend(tco=TCO)
    monkeypatch.setenv("METERHOUSE_ADMIN_URL", admin_house.url)
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)

    status = main(["tco", "--backend", backend["name"], "--json"])
    told = json.loads(capsys.readouterr().out)
    busier = main(["tco", "--backend", backend["name"], "--utilisation", "0.7", "--json"])
    what_if = json.loads(capsys.readouterr().out)
    missing = main(["tco", "--backend", "nobody"])

    assert (status, busier, missing) == (0, 0, 1)
    assert told["per_million"]["output"] == "1.461698"
    assert what_if["per_million"]["output"] == "0.748212"
    assert "there is no backend 'nobody'" in capsys.readouterr().err


def test_a_request_costs_what_its_box_costs(tmp_path: Path, store_url: str) -> None:
    async def story() -> dict[str, Any]:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url, "tco": TCO})
            answer = await house.ask(
                world.secret, model="chat", messages=[{"role": "user", "content": "hello"}]
            )
            assert answer.status_code == 200
            await house.settled()
            async with open_jobs(house.settings, "test") as jobs:
                stopping = asyncio.Event()
                stopping.set()
                await drain_journal.drain(jobs, "s00", stopping)
            span = {"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
            found: dict[str, Any] = (await house.look("usage/requests", **span))["items"][0]
            return found

    row = run(story())

    prices = cost_prices(msgspec.structs.replace(BOXES["h100"].profile, **RATES))
    (attempt,) = row["attempts"]
    owed = sum(picos * attempt["usage"].get(meter.value, 0) for meter, picos in prices.items())
    assert Decimal(attempt["cost"]) == Decimal(owed).scaleb(-12)
    assert Decimal(row["charge"]) > Decimal(row["cost"]) > 0
