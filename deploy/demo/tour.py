"""The demo's tour: seeds what is missing and, once, sends requests and shows what came of them.

`python tour.py DIRECTORY`, with the settings of a running `meterhouse up` in the environment. The
directory remembers the demo from one start to the next.
"""

import contextlib
import csv
import io
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from seeding import SEED, Demo, SeedingError, mark_shown, put_in_place
from traffic import Outcome, Plan, Traffic

from billing.periods import window
from gateway.clock import now_us
from gateway.commands import documents
from gateway.commands.remote import Remote, RemoteError
from gateway.program import program
from gateway.settings import Settings

PLANS = (
    Plan("helpdesk-bot", "chat-default", 10),
    Plan("support-search", "embed-small", 8),
    Plan("support-search", "chat-default", 4),
    Plan("research-notebook", "chat-default", 10),
)
ABROAD = Plan("helpdesk-bot", "chat-us", 1)
POOR = Plan("research-batch", "chat-default", 1, max_tokens=48)
MOST_POOR = 8
LEDGER_WITHIN_SECONDS = 30
IN_FORCE_WITHIN_SECONDS = 10


def main(directory: Path) -> None:
    settings = Settings.from_env(os.environ)
    with Remote.from_env() as admin:
        demo = put_in_place(admin, directory)
        if demo.seeded:
            shown = SEED.relative_to(SEED.parents[2])
            print(f"Applied {shown}: {', '.join(documents.NOUNS.values())}.", flush=True)
            print(demo.warnings, end="", file=sys.stderr)
        wait_for_backends(directory)
        if demo.shown:
            names = " and ".join(each["name"] for each in demo.tenants)
            print(f"The demo's {names} are as they were left; no request was sent.", flush=True)
            return
        wait_until_in_force(admin, settings.workers)
        endpoints = json.loads((settings.run_dir / "endpoints.json").read_bytes())
        show(admin, demo, endpoints["gateway"])
    mark_shown(directory)


def show(admin: Remote, demo: Demo, gateway_url: str) -> None:
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    traffic = Traffic(gateway_url, {app: key.secret for app, key in demo.keys.items()})
    outcomes = send(traffic)
    refusals = [traffic.one(ABROAD)]
    poor = spend_a_budget(traffic)
    outcomes += poor[:-1]
    refusals += poor[-1:]
    answered = sum(outcome.status == 200 for outcome in outcomes)
    rows = usage(admin, demo, began, answered)
    teams = {each["id"]: each["team_id"] for each in admin.all("keys")}
    print_table(rows, outcomes, {app: teams[key.id] for app, key in demo.keys.items()})
    print_refusals(refusals)
    print_invoice(admin, demo)


def wait_for_backends(directory: Path) -> None:
    """The models take a moment to load; until then their ports refuse or say 503."""
    ports = json.loads((directory / "ports.json").read_bytes())
    for name, port in ports.items():
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).is_success:
                    break
            time.sleep(0.1)
        else:
            raise SystemExit(f"the demo's backend {name} did not come up on port {port}")


def wait_until_in_force(admin: Remote, workers: int) -> None:
    """Until every worker serves by the newest configuration, which takes a second or two."""
    deadline = time.monotonic() + IN_FORCE_WITHIN_SECONDS
    while time.monotonic() < deadline:
        status = admin.call("GET", "/status").json()
        up_to_date = [w for w in status["workers"] if w["revision"] >= status["revision"]]
        if len(up_to_date) >= workers:
            return
        time.sleep(0.1)


def send(traffic: Traffic) -> list[Outcome]:
    total = sum(plan.count for plan in PLANS)
    print(f"Sending {total} requests through the gateway ", end="", flush=True)
    try:
        return traffic.run(PLANS, lambda outcome: print_dot(outcome.status))
    finally:
        print(flush=True)


def print_dot(status: int) -> None:
    print("." if status == 200 else "x", end="", flush=True)


def spend_a_budget(traffic: Traffic) -> list[Outcome]:
    """One app has a daily budget of next to nothing: it asks until it is refused."""
    outcomes = []
    for _ in range(MOST_POOR):
        outcomes.append(traffic.one(POOR))
        if outcomes[-1].status != 200:
            break
    return outcomes


def usage(admin: Remote, demo: Demo, began: str, requests: int) -> list[dict[str, Any]]:
    """What the ledger says since the tour began, once every request has arrived there."""
    deadline = time.monotonic() + LEDGER_WITHIN_SECONDS
    while True:
        rows: list[dict[str, Any]] = []
        for tenant in demo.tenants:
            params = {"from": began, "tenant_id": tenant["id"], "group_by": "team,model,region"}
            rows += admin.call("GET", "/usage", params=params).json()["items"]
        if sum(row["requests"] for row in rows) >= requests or time.monotonic() > deadline:
            return rows
        time.sleep(0.2)


def print_table(rows: list[dict[str, Any]], outcomes: list[Outcome], teams: dict[str, str]) -> None:
    ttft: dict[tuple[str, str, str], list[float]] = {}
    for outcome in outcomes:
        group = (teams[outcome.app], outcome.model, outcome.region)
        ttft.setdefault(group, []).append(outcome.ttft_ms)
    print(
        f"\n{'team':<14}{'model':<14}{'backend region':<16}{'requests':>9}{'tokens in':>11}"
        f"{'out':>7}{'charge':>18}{'TTFT p50':>11}"
    )
    for row in sorted(rows, key=lambda row: (row.get("team_name", ""), row["model"])):
        times = ttft.get((row["team"], row["model"], row["region"]))
        shown = f"{median(times):.0f} ms" if times else "-"
        print(
            f"{row.get('team_name', row['team']):<14}{row['model']:<14}{row['region']:<16}"
            f"{row['requests']:>9}{row['input_tokens'] + row['cache_read_tokens']:>11}"
            f"{row['output_tokens']:>7}{row['charge'] + ' ' + row['currency']:>18}{shown:>11}"
        )
    unexpected = Counter(outcome.refusal[0] for outcome in outcomes if outcome.refusal)
    for code, count in unexpected.items():
        print(f"  {count} refused: {code}")


def print_refusals(refusals: list[Outcome]) -> None:
    print("\nTwo that had to be refused:")
    for outcome in refusals:
        code, message = outcome.refusal or ("not refused", "")
        print(f"  {outcome.app} asked {outcome.model}: {outcome.status} {code}\n    {message}")


def print_invoice(admin: Remote, demo: Demo) -> None:
    """The first lines of the first tenant's draft for this month."""
    tenant = demo.tenants[0]
    period = window("month", ZoneInfo(tenant["timezone"]), now_us()).id.removeprefix("m")
    draft = admin.call("POST", "/invoices", {"tenant_id": tenant["id"], "period": period}).json()
    lines = admin.call("GET", f"/invoices/{draft['id']}/lines.csv").text
    rows = list(csv.DictReader(io.StringIO(lines)))
    print(
        f"\nInvoice draft of {tenant['name']} for {period}: {draft['total']} {draft['currency']}, "
        f"{len(rows)} lines. The first:"
    )
    print(
        f"  {'team':<14}{'key':<16}{'model':<14}{'meter':<12}{'quantity':>9}{'per million':>13}"
        f"{'amount':>18}"
    )
    for row in [row for row in rows if row["line_kind"] != "rounding"][:6]:
        print(
            f"  {row['team']:<14}{row['key']:<16}{row['model']:<14}{row['meter']:<12}"
            f"{row['quantity']:>9}{row['unit_price_per_million']:>13}{row['amount']:>18}"
        )
    print(f"  all of it: {program()} invoice export {draft['id']}", flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (RemoteError, SeedingError) as error:
        raise SystemExit(f"the demo's tour stopped: {error}") from None
