"""What was decided of each request, and why, is kept with its bill, and nothing of its content."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Engine

from gateway import clock, ids
from gateway.dataplane.decisions import REFUSALS_A_SECOND
from gateway.stores.sql import decisions
from gateway.stores.sql.decisions import Sealed
from gateway.stores.sql.engine import reading
from policies.facts import Standing, reasons_of
from policies.filters import Reason
from tests.booked import ledger_rows
from tests.house import House, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "a secret of mine"}]
EXPLAIN = {"x-meterhouse-explain": "1", "x-meterhouse-tags": "app=desk"}


def of_request(engine: Engine, request_id: str) -> Sealed | None:
    with reading(engine) as connection:
        return decisions.of_request(connection, request_id)


async def kept(house: House, request_id: str) -> tuple[Sealed, Standing]:
    engine = house.opened.deps.engine
    sealed = await asyncio.to_thread(of_request, engine, request_id)
    assert sealed is not None
    digest = sealed.record.facts.standing
    return sealed, (await asyncio.to_thread(decisions.standings, engine, [digest]))[digest]


async def ask(house: House, secret: str, **body: Any) -> Any:
    headers = {"authorization": f"Bearer {secret}"} | EXPLAIN
    body = {"model": "chat", "messages": HELLO, "max_tokens": 20} | body
    return await house.client.post("/v1/chat/completions", json=body, headers=headers)


def test_a_served_request_leaves_every_candidate_with_its_reasons(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            world = await furnish(
                house,
                {"base_url": backend.base_url, "jurisdictions": ["DE"]},
                {"base_url": backend.base_url, "jurisdictions": ["US"]},
            )
            made = await house.policy(
                name="eu", scope={"tenant": world.tenant["id"]}, require={"residency": ["EU"]}
            )
            await house.in_force()

            answer = await ask(house, world.secret)
            assert len(await ledger_rows(house)) == 1

            request_id = answer.headers["x-request-id"]
            assert answer.headers["x-meterhouse-decision"] == ids.decision_of(request_id)
            sealed, standing = await kept(house, request_id)
            record, facts = sealed.record, sealed.record.facts
            assert (record.tenant_id, record.key_id) == (world.tenant["id"], world.key["id"])
            assert record.tags == {"app": "desk"}
            assert (facts.refusal, facts.order) == ("", (0,))
            assert [reasons_of(bits) for bits in facts.against] == [(), (Reason.RESIDENCY,)]
            assert [each.backend_id for each in standing.candidates] == [
                backend["id"] for backend in world.backends
            ]
            (document,) = standing.documents
            assert (document.policy_id, document.policy_version) == (made["id"], 1)
            everything = repr(sealed) + repr(standing)
            assert "secret of mine" not in everything

    run(scenario())


def test_what_many_decisions_have_in_common_is_told_once(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.in_force()

            for _ in range(5):
                assert (await ask(house, world.secret)).status_code == 200
                await house.settled()
            assert len(await ledger_rows(house)) == 5

            engine = house.opened.deps.engine
            found = list(decisions.in_span(engine, 0, 2**62))
            assert len({sealed.record.request_id for sealed in found}) == 5
            assert len({sealed.record.facts.standing for sealed in found}) == 1
            assert decisions.verify(engine).fault is None

    run(scenario())


def test_a_refused_request_leaves_its_decision_too(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url, "jurisdictions": ["US"]})
            await house.policy(
                name="eu", scope={"tenant": world.tenant["id"]}, require={"residency": ["EU"]}
            )
            await house.in_force()

            answer = await ask(house, world.secret)
            assert await ledger_rows(house) == []

            assert answer.status_code == 403
            sealed, standing = await kept(house, answer.headers["x-request-id"])
            assert sealed.record.facts.refusal == "residency_violation"
            assert reasons_of(sealed.record.facts.against[0]) == (Reason.RESIDENCY,)
            assert len(standing.candidates) == 1

    run(scenario())


def test_a_budget_that_refuses_leaves_the_plan_it_would_not_pay(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.make(
                "budgets", scope={"key": world.key["id"]}, amount="0.000001", period="month"
            )
            await house.in_force()

            answer = await ask(house, world.secret)
            assert await ledger_rows(house) == []

            assert answer.status_code == 429
            sealed, _ = await kept(house, answer.headers["x-request-id"])
            assert sealed.record.facts.refusal == "insufficient_quota"
            assert sealed.record.facts.order == (0,)

    run(scenario())


def test_a_flood_of_refusals_costs_a_bounded_number_of_records(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.make(
                "budgets", scope={"key": world.key["id"]}, amount="0.000001", period="month"
            )
            await house.in_force()
            began = clock.monotonic_us()

            count = 4 * REFUSALS_A_SECOND
            for _ in range(count):
                assert (await ask(house, world.secret)).status_code == 429
            seconds = (clock.monotonic_us() - began) // 1_000_000 + 2
            assert await ledger_rows(house) == []

            found = list(decisions.in_span(house.opened.deps.engine, 0, 2**62))
            assert 0 < len(found) <= min(count, REFUSALS_A_SECOND * seconds)

    run(scenario())


def test_a_decision_is_explained_listed_and_verified_by_the_admin_api(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            world = await furnish(
                house,
                {"base_url": backend.base_url, "jurisdictions": ["DE"]},
                {"base_url": backend.base_url, "jurisdictions": ["US"]},
            )
            await house.policy(
                name="eu", scope={"tenant": world.tenant["id"]}, require={"residency": ["EU"]}
            )
            await house.in_force()
            german, american = (each["id"] for each in world.backends)
            answer = await ask(house, world.secret)
            refused = await ask(house, world.secret, max_tokens=None, n=100_000)
            assert refused.status_code == 400
            assert len(await ledger_rows(house)) == 1

            whole = await house.look(f"decisions/{answer.headers['x-meterhouse-decision']}")
            assert whole["known"]
            assert [each["backend_id"] for each in whole["plan"]] == [german]
            verdicts = {each["backend_id"]: each for each in whole["candidates"]}
            assert verdicts[german]["eligible"]
            assert verdicts[american]["codes"] == ["residency"]
            assert verdicts[american]["reasons"][0].startswith("residency: the law of US")
            assert [(went["backend_id"], went["winner"]) for went in whole["went"]] == [
                (german, True)
            ]
            listed = (await house.look("decisions", model="chat"))["items"]
            assert [each["id"] for each in listed] == [whole["id"]]
            by_request = await house.look("decisions", request_id=whole["request_id"])
            assert by_request["items"] == listed
            assert (await house.look("decisions", model="other"))["items"] == []
            verified = await house.look("decisions/verify")
            assert (verified["valid"], verified["records"]) == (True, 1)
            told = await house.look("decisions/head")
            assert told["heads"] == verified["heads"]
            _check(told["signed"], told["heads"])

    run(scenario())


def _check(signed: dict[str, str], heads: list[dict[str, Any]]) -> None:
    """As an auditor would, with the public key alone."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signed["public_key"]))
    key.verify(base64.b64decode(signed["signature"]), signed["statement"].encode())
    assert json.loads(signed["statement"])["heads"] == heads


def test_pages_of_decisions_follow_each_other(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.in_force()
            for _ in range(7):
                await ask(house, world.secret)
            assert len(await ledger_rows(house)) == 7

            seen: list[str] = []
            cursor: dict[str, str] = {}
            while True:
                found = await house.look("decisions", limit=3, **cursor)
                seen += [each["request_id"] for each in found["items"]]
                if found["next"] is None:
                    break
                cursor = {"cursor": found["next"]}
            assert len(seen) == len(set(seen)) == 7

    run(scenario())
