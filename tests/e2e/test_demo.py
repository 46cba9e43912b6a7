"""What a newcomer sees: `up --demo` on real engines, and that all it prints is true and works."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import takewhile
from typing import Any

import httpx
import pytest

from tests.e2e.house import ROOT, House, house

pytestmark = pytest.mark.engine

Row = dict[str, Any]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One demo for all of these tests: its models take their time."""
    with house(tmp_path_factory.mktemp("demo") / "home", "--demo", within_s=240) as up:
        yield up


def after(up: House, words: str) -> list[str]:
    """The printed lines that follow the first with these words, up to an empty one."""
    at = up.lines.index(up.says(words))
    return list(takewhile(str.strip, up.lines[at + 1 :]))


def printed_table(up: House) -> list[Row]:
    rows = []
    for line in after(up, "backend region"):
        assert " refused: " not in line
        team, model, region, requests, taken, given, charge, currency, ttft, unit = line.split()
        assert (currency, unit) == ("USD", "ms")
        counts = {"requests": int(requests), "in": int(taken), "out": int(given)}
        place = {"team": team, "model": model, "region": region}
        rows.append(place | counts | {"charge": Decimal(charge), "ttft_ms": int(ttft)})
    return rows


def in_the_ledger(up: House) -> list[Row]:
    with up.admin() as admin:
        answer = admin.get("/usage", params={"group_by": "team,model,region"})
    rows: list[Row] = answer.json()["items"]
    return rows


def test_its_table_shows_each_team_model_and_region_as_the_ledger_has_them(
    demo: House, figure: Callable[[str], None]
) -> None:
    rows = printed_table(demo)
    figure("\n".join([demo.says("backend region"), *after(demo, "backend region")]))

    assert {(row["team"], row["model"]) for row in rows} == {
        ("helpdesk", "chat-default"),
        ("support", "chat-default"),
        ("support", "embed-small"),
        ("research", "chat-default"),
    }
    assert {row["region"] for row in rows if row["team"] == "helpdesk"} == {"eu-central"}
    assert {row["region"] for row in rows} == {"eu-central", "us-east", "eu-edge"}
    assert sum(row["requests"] for row in rows) >= 32
    assert min(row["in"] for row in rows) > 0
    assert min(row["out"] for row in rows if row["model"] != "embed-small") > 0
    assert min(row["charge"] for row in rows) > 0
    assert min(row["ttft_ms"] for row in rows) > 0
    assert set(demo.says("Sending").rpartition(" ")[2]) == {"."}
    assert sorted(
        (row["requests"], row["in"], row["out"], row["charge"]) for row in rows
    ) == sorted(
        (
            row["requests"],
            row["input_tokens"] + row["cache_read_tokens"],
            row["output_tokens"],
            Decimal(row["charge"]),
        )
        for row in in_the_ledger(demo)
    )


def test_it_shows_one_refusal_by_residency_and_one_by_budget(
    demo: House, figure: Callable[[str], None]
) -> None:
    shown = after(demo, "Two that had to be refused:")
    figure("\n".join(shown))

    assert shown[0].strip() == "helpdesk-bot asked chat-us: 403 residency_violation"
    assert shown[2].strip() == "research-batch asked chat-default: 429 insufficient_quota"
    assert "key research-batch" in shown[3]
    with demo.admin() as admin:
        (budget,) = [
            each for each in admin.get("/budgets").json()["items"] if each["amount"] == "0.01"
        ]
    assert Decimal(budget["spent"]) <= Decimal("0.01")
    assert budget["held"] == "0"


def test_the_invoice_it_prints_adds_up(demo: House, figure: Callable[[str], None]) -> None:
    said = demo.says("Invoice draft of acme")
    _, *shown, how = after(demo, "Invoice draft of acme")
    total = Decimal(re.search(r": (\S+) USD, ", said)[1])  # type: ignore[index]
    for line in shown:
        *_, quantity, per_million, amount = line.split()
        assert Decimal(quantity) * Decimal(per_million) / 10**6 == Decimal(amount), line

    command = how.partition("meterhouse ")[2].split()
    assert command[:2] == ["invoice", "export"]
    exported = demo.command(*command)
    lines = list(csv.DictReader(io.StringIO(exported.stdout)))

    assert exported.returncode == 0, exported.stderr
    assert f"{len(lines)} lines" in said
    assert len(lines) > len(shown) > 3
    assert sum(Decimal(line["amount"]) for line in lines) == total > 0
    usage = [line for line in lines if line["line_kind"] == "usage"]
    for line in usage:
        worth = Decimal(line["quantity"]) * Decimal(line["unit_price_per_million"]) / 10**6
        assert worth == Decimal(line["amount"])
    with demo.admin() as admin:
        rows = admin.get("/usage", params={"group_by": "tenant"}).json()["items"]
        names = {each["id"]: each["name"] for each in admin.get("/tenants").json()["items"]}
    (charge,) = [Decimal(row["charge"]) for row in rows if names[row["tenant"]] == "acme"]
    assert sum(Decimal(line["amount"]) for line in usage) == charge
    figure(f"{len(lines)} lines add up to {total} USD; usage lines and ledger: {charge} USD")


def between(up: House, begin: str, end: str) -> str:
    """The indented block between two of the printed headings."""
    first, last = up.lines.index(up.says(begin)), up.lines.index(up.says(end))
    return textwrap.dedent("\n".join(up.lines[first + 1 : last])).strip()


def executed(*command: str) -> str:
    """What a command prints, started where the operator stands."""
    if command[0] == "sh" and "curl " in command[-1]:
        found = subprocess.run(["sh", "-c", "command -v curl"], capture_output=True, check=False)
        if found.returncode:
            pytest.skip("no curl on PATH")
    environ = os.environ | {"NO_PROXY": "*", "no_proxy": "*"}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_it_prints_is_answered_by_the_model(demo: House) -> None:
    answer = json.loads(
        executed("sh", "-c", between(demo, "A first request:", "The same from Python"))
    )

    assert answer["choices"][0]["message"]["content"].strip()
    assert answer["usage"]["completion_tokens"] > 0


def test_the_python_it_prints_is_answered_by_the_model(demo: House) -> None:
    program = between(demo, "The same from Python", "Ask the admin API:")

    assert "from openai import OpenAI" in program
    assert executed(sys.executable, "-W", "error", "-c", program).strip()


def test_the_admin_call_it_prints_shows_its_three_backends(demo: House) -> None:
    status = json.loads(executed("sh", "-c", between(demo, "Ask the admin API:", "Ctrl-C drains")))

    assert {each["name"] for each in status["backends"]} == {"eu-onprem", "us-cloud", "edge-minilm"}


NOUNS = (
    "tenants",
    "teams",
    "keys",
    "backends",
    "models",
    "prices",
    "policies",
    "budgets",
    "limits",
)


def configuration(admin: httpx.Client) -> dict[str, object]:
    """Everything that is configured, each with its version. The revision alone says less: an epoch
    of the store counts as one.
    """
    found = {
        noun: admin.get(f"/{noun}", params={"limit": 200}).raise_for_status().json()
        for noun in NOUNS
    }
    for budget in found["budgets"]["items"]:
        for passing in ("leased", "remaining"):  # workers borrow and give back all the time
            del budget[passing]
    return found


def test_a_second_start_neither_seeds_nor_asks_nor_touches_a_key_and_is_ready_soon(
    demo: House, figure: Callable[[str], None]
) -> None:
    key = (demo.home / "demo" / "key").read_text()
    with demo.admin() as admin:
        body = {"name": "own", "currency": "EUR", "timezone": "UTC"}
        tenant = admin.post("/tenants", json=body).json()
        team = admin.post("/teams", json={"tenant_id": tenant["id"], "name": "own"}).json()
        admin.post("/keys", json={"team_id": team["id"], "name": "helpdesk-bot"})
        before = configuration(admin)
    assert demo.stop() == 0

    with house(demo.home, "--demo", within_s=120) as again, again.admin() as admin:
        ready = float(re.search(r"ready \(([0-9.]+) s\)", again.says("is ready"))[1])  # type: ignore[index]
        assert "Sending" not in again.output
        assert "Applied" not in again.output
        again.says("as they were left; no request was sent")
        assert configuration(admin) == before
        assert (again.home / "demo" / "key").read_text() == key
        command = between(again, "A first request:", "The same from Python")
        assert json.loads(executed("sh", "-c", command))["choices"]

    figure(f"ready again in {ready} s, the models' own load included")
    assert ready < 30  # under 5 and the models' load on a machine of its own
