"""From a request to the webhook: the gateway as it runs, with its own jobs."""

import asyncio
import json
from pathlib import Path

from gateway.jobs import drain_journal, raise_alerts, tell_alerts
from gateway.wiring.jobs import open_jobs
from tests.hooks import Hook
from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

SECRET = "a-secret-of-the-hook"


def test_a_budget_that_a_request_exhausts_reaches_the_webhook(
    tmp_path: Path, store_url: str
) -> None:
    async def story() -> None:
        async with (
            Hook() as hook,
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url) as house,
        ):
            world = await furnish(house, {"base_url": backend.base_url}, charge=("100", "100"))
            scope = {"key": world.key["id"]}
            budget = await house.make("budgets", scope=scope, amount="0.001", period="day",
                                      mode="soft")  # fmt: skip
            await house.make(
                "alert-channels", name="hook", url=hook.url, secret=SECRET,
                scope={"tenant": world.tenant["id"]},
            )  # fmt: skip
            await house.in_force()
            answer = await house.ask(
                world.secret, model="chat", messages=[{"role": "user", "content": "hello"}]
            )
            assert answer.status_code == 200
            await house.settled()
            async with open_jobs(house.settings, "test") as jobs:
                stopping, going = asyncio.Event(), asyncio.Event()
                stopping.set()
                await drain_journal.drain(jobs, "s00", stopping)
                await raise_alerts.run(jobs, going)
                await tell_alerts.run(jobs, going)
                await raise_alerts.run(jobs, going)
                await tell_alerts.run(jobs, going)

            asked = {"budget_id": budget["id"], "rule": "threshold"}
            (alert,) = (await house.look("alerts", **asked))["items"]
            (sent,) = hook.sent
            told = json.loads(sent.body)
            assert told["message"] == alert["message"]
            assert told["link"] == f"{house.settings.find_admin_url()}{alert['link']}"
            assert alert["message"].startswith("100 % of the day budget of key app is spent")
            assert [each["state"] for each in alert["deliveries"]] == ["delivered"]
            path, _, query = alert["link"].removeprefix("/admin/v1/").partition("?")
            pairs = dict(each.split("=", 1) for each in query.split("&"))
            (row,) = (await house.look(path, **pairs))["items"]
            assert (row["key"], row["model"]) == (world.key["id"], "chat")

    run(story())
