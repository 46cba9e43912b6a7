"""Shadow traffic: a request goes to another model as well, for somebody who tries that one out. The
client neither sees nor pays for it, and it goes nowhere that the request itself may not go. The
backends' own books and the ledger say so.
"""

import asyncio
from pathlib import Path

import pytest

from tests.booked import ledger_rows
from tests.fault_proxy import FaultProxy
from tests.running import run
from tests.scripted_answers import Script
from tests.shadowing import HELLO, OPEN, staged


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_experiment_pays_for_the_shadow_and_the_client_neither_sees_nor_pays_for_it(
    tmp_path: Path, store_url: str, stream: bool
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as stage:
            await stage.tried()
            stage.live.script, stage.aside.script = Script(tokens=5), Script(tokens=9)
            answer = await stage.ask(stream=stream)
            assert answer.status_code == 200
            live_id = answer.headers["x-request-id"]
            assert "lab" not in answer.headers["x-meterhouse-backend-region"]
            await stage.house.settled()
            assert [len(each.book) for each in (stage.live, stage.aside)] == [1, 1]
            assert stage.aside.book[0].body["messages"] == HELLO
            assert stage.aside.book[0].stream is stream

            mine, other = await ledger_rows(stage.house)
            assert (mine.key_id, mine.model, mine.shadow_of) == (stage.world.key["id"], "chat", "")
            assert (other.key_id, other.model) == (stage.lab["id"], "chat-next")
            assert (other.shadow_of, mine.request_id) == (live_id, live_id)
            assert (other.winner, other.output_tokens, other.provenance) == (True, 9, "reported")
            assert other.charge_picos == (other.input_tokens + 9) * 1_000_000
            assert mine.charge_picos == mine.input_tokens * 3_000_000 + 5 * 15_000_000
            for key, row in ((stage.world.key, mine), (stage.lab, other)):
                assert await stage.spent(key) == (f"{row.charge_picos / 10**12:.6f}", "0")

            usage = await stage.house.look("usage/requests", request_id=other.request_id)
            assert usage["items"][0]["shadow_of"] == live_id
            asked, shadow = [
                (await stage.house.look("decisions", request_id=row.request_id))["items"][0]
                for row in (mine, other)
            ]
            assert (asked["shadow"], asked["shadow_of"]) == (other.request_id, None)
            assert (shadow["shadow"], shadow["shadow_of"]) == (None, live_id)
            assert (shadow["experiment"], shadow["degraded_from"]) == ("next", "chat")
            whole = await stage.house.look(f"decisions/{shadow['id']}")
            assert whole["policy"]["max_attempts"] == {"value": 1, "set_by": "trial"}
            assert stage.counted() == {"served": 1}

            # The version that is in force changes nothing of what it decided, shadows included.
            body = {"policy_id": stage.policy["id"]}
            again = (await stage.house.admin.post("/policies/replay", json=body)).json()
            assert (again["decisions"], again["changed"], again["unreadable"]) == (2, 0, 0)

    run(scenario())


def test_nobody_waits_for_a_shadow_and_at_the_end_it_is_cut_and_settled(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url, SHADOW_REQUESTS="1") as stage:
            await stage.tried()
            stage.aside.script = Script(delay_ms=60_000)
            for _ in range(3):
                assert (await stage.ask()).status_code == 200
            while len(stage.aside.book) < 1:
                await asyncio.sleep(0.005)
            assert stage.counted()["shed"] == 2  # one at a time: the others were not sent
            assert (await stage.spent(stage.lab))[1] != "0"

            await stage.house.data.plane.drain(0)
            await stage.house.settled()
            assert await stage.spent(stage.lab) == ("0", "0")
            assert stage.counted() == {"shed": 2, "cut": 1}
            shadow = [row for row in await ledger_rows(stage.house) if row.shadow_of]
            assert [(row.winner, row.charge_picos) for row in shadow] == [(False, 0)]
            while not stage.aside.book[0].client_disconnected:
                await asyncio.sleep(0.005)

    run(scenario())


def test_a_shadow_goes_nowhere_that_the_request_may_not_go(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        abroad = {"jurisdictions": ["US"]}
        async with staged(tmp_path, store_url, abroad) as stage:
            await stage.tried(require={"residency": ["EU"]})
            live_id = await stage.asked()
            assert stage.aside.accepted == 0
            assert [row.request_id for row in await ledger_rows(stage.house)] == [live_id]
            found = (await stage.house.look("decisions", refusal="residency_violation"))["items"]
            assert [(each["shadow_of"], each["key_id"]) for each in found] == [
                (live_id, stage.lab["id"])
            ]
            body = {"key_id": stage.world.key["id"], "model": "chat"}
            told = (await stage.house.admin.post("/policies/explain", json=body)).json()
            assert told["decision"] == "serve"
            assert told["shadow"]["decision"] == "refuse"
            assert told["shadow"]["refusal"]["code"] == "residency_violation"

            # What is required of the asker's content for the other model binds it as well, and so
            # does what is required of whoever pays.
            for scope in ({"team": stage.world.squad["id"]}, {"key": stage.lab["id"]}):
                await stage.house.admin.post(f"/policies/{stage.policy['id']}/retire", json={})
                await stage.tried(name=f"bare-{len(scope)}-{min(scope)}")
                bound = await stage.house.policy(
                    name="bound",
                    scope=scope,
                    match={"models": ["chat-next"]},
                    require={"residency": ["DE"]},
                )
                await stage.house.in_force()
                await stage.asked()
                assert stage.aside.accepted == 0
                await stage.house.admin.post(f"/policies/{bound['id']}/retire", json={})
            await stage.house.in_force()
            await stage.asked()
            assert stage.aside.accepted == 1
            assert stage.counted() == {"refused": 3, "served": 1}

    run(scenario())


def test_the_same_subjects_always_have_a_shadow_and_explain_knows_which(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as stage:
            await stage.tried(percent=40, by="tag:user")
            went: dict[str, list[int]] = {}
            for _ in range(2):
                for user in map(str, range(12)):
                    before = len(stage.aside.book)
                    await stage.asked({"x-meterhouse-tags": f"user={user}"})
                    went.setdefault(user, []).append(len(stage.aside.book) - before)
            assert {tuple(each) for each in went.values()} == {(0, 0), (1, 1)}
            for user, (sent, _) in went.items():
                body = {"key_id": stage.world.key["id"], "model": "chat", "tags": {"user": user}}
                told = (await stage.house.admin.post("/policies/explain", json=body)).json()
                assert told["policy"]["experiment"]["value"]["shadow"]["percent"] == 40
                if not sent:
                    assert told["shadow"] is None
                    assert "not among the 40 %" in told["no_shadow_because"]
                    continue
                assert told["shadow"]["decision"] == "serve"
                assert told["shadow"]["payer"] == {"key": stage.lab["id"]}
                assert told["shadow"]["policy"]["max_attempts"]["value"] == 1

            # Who pays is not shadowed, nor is what the other model serves anyway.
            user = next(user for user, (sent, _) in went.items() if sent)
            body = {"key_id": stage.lab["id"], "model": "chat", "tags": {"user": user}}
            told = (await stage.house.admin.post("/policies/explain", json=body)).json()
            assert told["shadow"]["decision"] == "refuse"
            assert "makes this request itself" in told["shadow"]["refusal"]["message"]
            before = len(stage.aside.book)
            for secret, model in ((stage.lab["secret"], "chat"), (stage.world.secret, "chat-next")):
                answer = await stage.house.ask(secret, model=model, messages=HELLO, max_tokens=20)
                assert answer.status_code == 200
            await stage.house.settled()
            assert len(stage.aside.book) == before + 1

    run(scenario())


def test_one_attempt_and_no_other_and_what_fails_costs_the_experiment_nothing(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as stage:
            kept = {"store_answers": "on", "keep_seconds": 600}
            await stage.tried(retries={"max_attempts": 3, "hedge_after_ms": 5}, idempotency=kept)
            stage.aside.script = Script(status=429)
            for _ in range(2):  # what is replayed has no shadow
                await stage.asked({"idempotency-key": "one"})
            assert len(stage.live.book) == 1
            stage.aside.script = Script(cut_after_chunks=0, cut_at_byte=9)
            await stage.asked(stream=True)
            assert len(stage.aside.book) == 2
            assert await stage.spent(stage.lab) == ("0", "0")
            rows = [row for row in await ledger_rows(stage.house) if row.shadow_of]
            assert [(row.winner, row.charge_picos, row.status) for row in rows] == [
                (False, 0, 503),
                (False, 0, 502),
            ]
            assert stage.counted() == {"failed": 2}

    run(scenario())


def test_nobody_can_have_others_pay_and_without_money_or_right_of_the_payer_there_is_no_shadow(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as stage:
            stranger = "key_" + "0" * 26
            below = {"scope": {"team": stage.world.squad["id"]}}
            document = stage.document()
            document["experiment"]["shadow"]["payer"] = {"key": stranger}
            for written in (stage.document() | below, document):
                answer = await stage.house.admin.post("/policies", json=written)
                assert answer.status_code == 422
                (error,) = answer.json()["errors"]
                assert error["field"] == "experiment.shadow.payer"
                assert "no live key" in error["message"], "whether there is one is not told apart"
                assert error["remedy"]
            key = stage.document() | {"scope": {"key": stage.world.key["id"]}}
            answer = await stage.house.admin.post("/policies", json=key)
            assert answer.json()["errors"][0]["field"] == "experiment.shadow"

            document = stage.document()
            document["name"], document["experiment"]["shadow"]["model"] = "other", "nobody"
            (warning,) = (await stage.house.make("policies", **document))["warnings"]
            assert "'nobody'" in warning

            await stage.tried()
            (budget,) = (await stage.house.look("budgets", scope_id=stage.lab["id"]))["items"]
            kept = ("scope", "period", "mode")
            changed = {name: budget[name] for name in kept} | {"amount": "0.000001"}
            put = await stage.house.admin.put(f"/budgets/{budget['id']}", json=changed)
            assert put.status_code == 200, put.text
            await stage.house.in_force()
            live_id = await stage.asked()
            assert stage.counted() == {"refused": 1}
            found = (await ledger_rows(stage.house), await stage.house.look("decisions"))
            assert [row.request_id for row in found[0]] == [live_id]
            codes = {each["shadow_of"]: each["refusal"] for each in found[1]["items"]}
            assert codes == {None: None, live_id: "insufficient_quota"}

            revoked = await stage.house.admin.post(f"/keys/{stage.lab['id']}/revoke", json={})
            assert revoked.status_code == 200, revoked.text
            await stage.house.in_force()
            await stage.asked()
            assert stage.aside.accepted == 0
            assert stage.counted() == {"refused": 2}

    run(scenario())


def test_without_the_store_requests_are_served_and_shadows_are_not(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        target = Path(store_url.removeprefix("unix://").partition("?")[0])
        async with (
            FaultProxy(target) as proxy,
            staged(tmp_path, f"redis://127.0.0.1:{proxy.port}") as stage,
        ):
            await stage.tried()
            (budget,) = (await stage.house.look("budgets", scope_id=stage.world.key["id"]))["items"]
            kept = {name: budget[name] for name in ("scope", "period", "mode", "amount")}
            put = await stage.house.admin.put(f"/budgets/{budget['id']}", json=kept | OPEN)
            assert put.status_code == 200, put.text
            (budget,) = (await stage.house.look("budgets", scope_id=stage.lab["id"]))["items"]
            kept = {name: budget[name] for name in ("scope", "period", "mode", "amount")}
            put = await stage.house.admin.put(f"/budgets/{budget['id']}", json=kept | OPEN)
            await stage.house.in_force()
            try:
                await stage.asked()
                proxy.refuse = True
                proxy.reset()
                await stage.asked()
                assert [len(each.book) for each in (stage.live, stage.aside)] == [2, 1]
                assert stage.counted() == {"served": 1, "refused": 1}
            finally:
                proxy.calm()

    run(scenario())


def test_a_backend_that_is_full_gets_no_shadow_and_nobody_queues(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url, {"max_concurrency": 1}) as stage:
            await stage.tried()
            await stage.asked()
            assert len(stage.aside.book) == 1
            stage.aside.answering.clear()
            busy = asyncio.create_task(
                stage.house.ask(stage.world.secret, model="chat-next", messages=HELLO, max_tokens=9)
            )
            while len(stage.aside.book) < 2:
                await asyncio.sleep(0.005)
            assert (await stage.ask()).status_code == 200
            while stage.house.data.plane.shadows.under_way:
                await asyncio.sleep(0.005)
            assert stage.counted() == {"served": 1, "shed": 1}
            stage.aside.answering.set()
            assert (await busy).status_code == 200
            assert len(stage.aside.book) == 2
            assert (await stage.spent(stage.lab))[1] == "0"

    run(scenario())
