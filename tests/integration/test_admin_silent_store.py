"""Who looks at budgets while the store is silent is answered, without the figures it has."""

import socket
import time
from pathlib import Path

import pytest

from gateway.commands.remote import Remote, RemoteError
from tests.fault_proxy import FaultProxy
from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

BUDGETS = 8


def test_many_budgets_wait_for_a_silent_store_once(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        target = Path(store_url.removeprefix("unix://").partition("?")[0])
        async with FaultProxy(target) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/0"
            async with ScriptedBackend() as backend, open_house(tmp_path, url) as house:
                world = await furnish(house, {"base_url": backend.base_url})
                teams = [
                    await house.make("teams", tenant_id=world.tenant["id"], name=f"team {n}")
                    for n in range(BUDGETS)
                ]
                for team in teams:
                    scope = {"team": team["id"]}
                    await house.make("budgets", scope=scope, amount="1", period="day")
                proxy.blackhole = True
                began = time.monotonic()

                items = (await house.look("budgets"))["items"]

                waited_s = time.monotonic() - began
                assert [each["spent"] for each in items] == [None] * BUDGETS
                alone_s = time.monotonic()
                one = await house.look(f"budgets/{items[0]['id']}")
                alone_s = time.monotonic() - alone_s
                assert one["remaining"] is None
                assert waited_s < BUDGETS / 2 * alone_s, "they waited side by side"
                proxy.calm()
                proxy.reset()

    run(scenario())


def test_status_says_soon_that_the_store_is_silent(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        target = Path(store_url.removeprefix("unix://").partition("?")[0])
        async with FaultProxy(target) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/0"
            async with ScriptedBackend() as backend, open_house(tmp_path, url) as house:
                await furnish(house, {"base_url": backend.base_url})
                proxy.blackhole = True
                began = time.monotonic()

                status = await house.look("status")

                assert time.monotonic() - began < 6, "once for what it keeps and what waits in it"
                assert status["stores"]["redis"]["ok"] is False
                assert status["stores"]["database"]["ok"] is True
                assert [each["name"] for each in status["backends"]] == ["backend-0"]
                proxy.calm()
                proxy.reset()

    run(scenario())


def test_an_admin_api_that_is_slow_is_not_taken_for_one_that_is_not_running() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with (
            Remote(f"http://127.0.0.1:{port}", "token") as remote,
            pytest.raises(RemoteError, match="had no answer within") as told,
        ):
            remote.call("GET", "/budgets", within_s=0.2)

    assert "meterhouse up" not in str(told.value)
