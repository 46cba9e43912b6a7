"""`meterhouse policy`, as typed: against a real admin server with decisions in its database."""

import json
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import clock, ids
from gateway.__main__ import main
from gateway.admin import replay
from gateway.stores.sql import decisions, policies
from gateway.stores.sql.engine import reading
from policies.candidates import Live
from policies.compile import compile_policies
from policies.document import load
from policies.facts import DECODER, DocumentRef, Record, Recorder, Standing
from policies.panel import Panel
from policies.route import Plan, decide
from tests.admin_server import TOKEN, AdminServer, Made, admin_server
from tests.policy_builders import GATEWAY, a_candidate, an_ask, seen_as

CANDIDATES = (
    a_candidate("bk_us", jurisdictions=frozenset({"US"}), region="us-east", cost_input_picos=1),
    a_candidate("bk_eu"),
)


@pytest.fixture
def server(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminServer]:
    """An admin server that the command finds by its environment."""
    with admin_server(sqlite_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        yield server


class Decided:
    """A policy with a version in force and a draft, and decisions made under the first."""

    def __init__(self, server: AdminServer) -> None:
        self.engine = server.engine
        with server.client() as client:
            made = Made(client)
            self.tenant = made.tenant(name="acme")["id"]
            self.team = made.team(self.tenant, name="desk")["id"]
            document = {"name": "where", "scope": {"tenant": self.tenant}}
            policy = made.make("policies", **document)
            self.id = policy["id"]
            assert client.post(f"/policies/{self.id}/activate", json={}).is_success
            document["require"] = {"residency": ["EU"]}
            assert client.put(f"/policies/{self.id}", json=document).is_success
        with reading(self.engine) as connection:
            versions = policies.versions(connection, self.id)
        active = next(each for each in versions if each.policy_version == 1)
        effective = compile_policies(
            [("tenant", 0, "where", load(active.document))], "chat-default"
        )
        self._panel = Panel(effective, CANDIDATES)
        self._recorder = Recorder(
            Standing(
                model="chat-default",
                timezone="UTC",
                documents=(DocumentRef("tenant", 0, "where", self.id, 1),),
                policy=effective,
                candidates=CANDIDATES,
                gateway_jurisdictions=GATEWAY,
            )
        )

    def record(self, count: int, in_a_block: int = 1_000) -> None:
        """As a worker and the jobs would have."""
        now_us = clock.now_us()
        standing = {self._recorder.digest: self._recorder.packed}
        for start in range(0, count, in_a_block):
            some = [self._one(n, now_us - n) for n in range(start, min(count, start + in_a_block))]
            decisions.add_alone(self.engine, "s00", some, standing, now_us)

    def _one(self, n: int, at_us: int) -> Record:
        ask = an_ask(input_estimate=100 + n % 900)
        live = seen_as(bk_eu=Live(in_flight=n % 7), bk_us=Live(ttft_p95_us=n * 1_000, samples=20))
        plan = decide(self._panel, ask, live, GATEWAY, n * 2_654_435_761 % 2**32)
        assert isinstance(plan, Plan)
        draw = n * 2_654_435_761 % 2**32
        packed = self._recorder.facts(ask, live, plan.verdicts, plan.attempts, draw, at_us)
        facts = DECODER.decode(packed)
        return Record(ids.new("req"), self.tenant, (self.team,), "key_1", {}, facts)


def test_a_draft_is_replayed_and_the_difference_shown_as_a_table(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    decided = Decided(server)
    decided.record(30)

    assert main(["policy", "replay", "where"]) == 0
    shown = capsys.readouterr().out
    assert main(["policy", "replay", decided.id, "--version", "1", "--json"]) == 0
    same = json.loads(capsys.readouterr().out)

    assert "30 decisions, 30 would have been others (100.0 %)" in shown
    assert "region us-east" in shown
    assert "bk_us/smollm2 +1" in shown
    assert "  desk " in shown, "the team by its name"
    assert "0.000000000000" not in shown
    assert (same["decisions"], same["changed"], same["before"]) == (30, 0, same["after"])


def test_a_version_is_put_in_force_and_back_and_out(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    Decided(server)
    told = []
    for words in ("shadow", "activate", "rollback", "retire --reason over"):
        verb, *more = words.split()
        assert main(["policy", verb, "where", *more]) == 0
        told.append(capsys.readouterr().out.strip())
    assert told == [
        "where: version 1 is in force, version 2 decides without effect",
        "where: version 2 is in force",
        "where: version 1 is in force",
        "where: no version is in force",
    ]

    with server.client() as client:
        (policy,) = client.get("/policies").json()["items"]
        made = Made(client)
        made.make("policies", name="never", scope=policy["scope"])
    assert policy["history"][0]["reason"] == "over"
    assert main(["policy", "rollback", "never"]) == 1
    assert "no other version of policy 'never' was ever in force" in capsys.readouterr().err


def test_a_policy_that_is_not_there_is_said_so(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "replay", "nothing"]) == 1
    assert "there is no policy 'nothing'" in capsys.readouterr().err


def test_a_hypothetical_request_is_explained_in_words(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with server.client() as client:
        made = Made(client)
        tenant = made.tenant(name="acme")
        team = made.team(tenant["id"], name="desk")
        made.make("keys", team_id=team["id"], name="bot")
        backend = made.backend()
        made.model(backend["id"], name="chat")
        made.make("policies", name="eu", scope={"team": team["id"]})

    assert main(["policy", "explain", "--key", "acme/desk/bot", "--model", "chat"]) == 0
    shown = capsys.readouterr().out

    assert shown.startswith("refuse: unpriced_model")
    assert f"{backend['name']}/" in shown
    assert "unpriced: no charge price" in shown
    assert "what backends are doing is unknown" in shown


def test_a_shadow_is_explained_in_words_to_whoever_sees_no_tenant(
    server: AdminServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.client() as client:
        made = Made(client)
        tenant = made.tenant(name="acme")
        team = made.team(tenant["id"], name="desk")
        bot, lab = (made.make("keys", team_id=team["id"], name=name) for name in ("bot", "lab"))
        backend = made.backend()
        for name in ("chat", "chat-next"):
            made.model(backend["id"], name=name)
            for meter in ("input", "output"):
                made.make(
                    "prices", book="charge", model=name, meter=meter, amount_per_million="1",
                    currency=tenant["currency"], effective_from="2026-01-01T00:00:00Z",
                )  # fmt: skip
        shadow = {"model": "chat-next", "percent": 100, "payer": {"key": lab["id"]}}
        trial = made.make(
            "policies", name="trial", scope={"team": team["id"]},
            match={"models": ["chat"]}, experiment={"name": "next", "shadow": shadow},
        )  # fmt: skip
        assert client.post(f"/policies/{trial['id']}/activate").is_success
        holder = made.make(
            "admin-tokens", name="desk lead", role="team_admin", scope={"team": team["id"]}
        )
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", holder["secret"])

    shown = {}
    for key in (bot, lab):
        assert (
            main(["policy", "explain", "--key", f"acme/desk/{key['name']}", "--model", "chat"]) == 0
        )
        shown[key["name"]] = capsys.readouterr().out
    assert main(["policy", "explain", "--key", "acme/other/bot", "--model", "chat"]) == 1
    unknown = capsys.readouterr().err

    assert "shadow: would be sent to chat-next (experiment next)" in shown["bot"]
    assert "shadow: would not be sent to chat-next" in shown["lab"]
    assert "makes this request itself" in shown["lab"]
    assert "the key's id may be given" in unknown


@pytest.mark.long
def test_a_hundred_thousand_decisions_are_replayed(
    server: AdminServer, figure: Callable[[str], None]
) -> None:
    decided = Decided(server)
    decided.record(100_000)
    with reading(decided.engine) as connection:
        draft, active = policies.versions(connection, decided.id)

    def measured(version: Any) -> tuple[dict[str, Any], float]:
        began = time.monotonic()
        told = replay.report(decided.engine, version, 0, clock.now_us() + 1)
        return told, time.monotonic() - began

    same, seconds = measured(active)
    other, others_seconds = measured(draft)
    tracemalloc.start()
    replay.report(decided.engine, draft, 0, clock.now_us() + 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    figure(
        f"100,000 decisions replayed: the version in force in {seconds:.1f} s, "
        f"{same['changed']} changed; a draft in {others_seconds:.1f} s, {other['changed']} "
        f"changed; peak {math.ceil(peak / 2**20)} MiB of Python's own"
    )

    assert (same["decisions"], same["changed"], same["unreadable"]) == (100_000, 0, 0)
    assert (other["decisions"], other["changed"]) == (100_000, 100_000)
    assert peak < 64 * 2**20
