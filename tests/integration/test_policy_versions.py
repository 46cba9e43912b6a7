"""Versions of a policy: who changed what and why, editors at the same time, all workers at once."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.admin_server import AdminServer, Made
from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend
from tests.workers import another_worker

HELLO = [{"role": "user", "content": "hello there"}]


def steps(policy: dict[str, Any]) -> list[tuple[int, str, str | None]]:
    return [(each["version"], each["state"], each["reason"]) for each in policy["history"]]


def test_every_step_of_a_version_says_who_took_it_when_and_why(
    admin_client: httpx.Client, admin_house: AdminServer, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    token = made.make("admin-tokens", name="Ada", role="platform_admin")
    body = {"scope": scope, "name": "p", "prefer": "fastest"}
    with admin_house.client(token["secret"]) as ada:
        policy = ada.post("/policies", json=body, params={"reason": "asked for by support"}).json()
        path = f"/policies/{policy['id']}"
        ada.post(f"{path}/shadow", json={"reason": "try it first"})
        ada.post(f"{path}/activate", json={"reason": "it agreed"})
        ada.put(path, json=body | {"prefer": "balanced"}, params={"reason": "too dear"})
        admin_client.post(f"{path}/activate", json={"version": 2})
        found = ada.post(f"{path}/activate", json={"version": 1, "reason": "back"}).json()

    assert steps(found) == [
        (1, "active", "back"),
        (2, "retired", "back"),
        (2, "active", None),
        (1, "retired", None),
        (2, "draft", "too dear"),
        (1, "active", "it agreed"),
        (1, "shadow", "try it first"),
        (1, "draft", "asked for by support"),
    ]
    authors = [each["author"] for each in found["history"]]
    assert authors == ["Ada", "Ada", "admin token", "admin token", "Ada", "Ada", "Ada", "Ada"]
    times = [each["at"] for each in found["history"]]
    assert times == sorted(times, reverse=True)
    assert admin_client.get(path).json()["history"] == found["history"]
    assert admin_client.delete(path).status_code == 204


def at_once(calls: list[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """Every call from a thread of its own, begun together."""
    answers: list[httpx.Response] = []
    gate = threading.Barrier(len(calls))

    def make(call: Callable[[], httpx.Response]) -> None:
        gate.wait()
        answers.append(call())

    threads = [threading.Thread(target=make, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_of_editors_who_read_the_same_version_one_writes_and_the_others_are_told(
    admin_client: httpx.Client, admin_house: AdminServer, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    policy = made.make("policies", scope=scope, name="p", prefer="fastest")
    path = f"/policies/{policy['id']}"

    def editor(number: int) -> Callable[[], httpx.Response]:
        body = {"scope": scope, "name": "p", "slo": {"ttft_p95_ms": 100 + number}}
        etag = admin_client.get(path).headers["etag"]

        def edit() -> httpx.Response:
            with admin_house.client() as client:
                return client.put(path, json=body, headers={"if-match": etag})

        return edit

    answers = at_once([editor(number) for number in range(6)])

    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412, 412]
    assert len(admin_client.get(path).json()["versions"]) == 2


def test_of_those_who_activate_at_once_one_does_and_one_version_is_in_force(
    admin_client: httpx.Client, admin_house: AdminServer, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    policy = made.make("policies", scope=scope, name="p", slo={"ttft_p95_ms": 1})
    path = f"/policies/{policy['id']}"
    for ms in (2, 3, 4):
        admin_client.put(path, json={"scope": scope, "name": "p", "slo": {"ttft_p95_ms": ms}})

    def activate(version: int, **headers: str) -> Callable[[], httpx.Response]:
        def call() -> httpx.Response:
            with admin_house.client() as client:
                return client.post(f"{path}/activate", json={"version": version}, headers=headers)

        return call

    etag = admin_client.get(path).headers["etag"]
    told = at_once([activate(version, **{"if-match": etag}) for version in (1, 2, 3, 4)])
    assert sorted(answer.status_code for answer in told) == [200, 412, 412, 412]
    (first,) = (answer.json()["active_version"] for answer in told if answer.status_code == 200)
    assert admin_client.get(path).json()["active_version"] == first

    blind = at_once([activate(version) for version in (1, 2, 3, 4)])
    assert {answer.status_code for answer in blind} == {200}
    states = [each["state"] for each in admin_client.get(path).json()["versions"]]
    assert sorted(states) == ["active", "retired", "retired", "retired"]


def test_a_version_is_in_force_on_every_worker_within_a_second_and_so_is_going_back(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
            another_worker(house, 1) as worker,
        ):
            world = await furnish(house, {"base_url": backend.base_url})
            document = {"name": "p", "scope": {"tenant": world.tenant["id"]}}
            made = await house.make("policies", **document)
            path = f"/policies/{made['id']}"
            await house.admin.put(path, json=document | {"require": {"residency": ["US"]}})
            headers = {"authorization": f"Bearer {world.secret}"}
            seen: list[list[tuple[float, int]]] = [[], []]

            async def ask(client: httpx.AsyncClient, into: list[tuple[float, int]]) -> None:
                """One request after another, each with the time at which it was sent."""
                while True:
                    sent = time.monotonic()
                    body = {"model": "chat", "messages": HELLO}
                    answer = await client.post("/v1/chat/completions", json=body, headers=headers)
                    into.append((sent, answer.status_code))

            clients = (house.client, worker.client)
            asking = [
                asyncio.create_task(ask(client, into))
                for client, into in zip(clients, seen, strict=True)
            ]
            took = []
            for version, status in ((2, 403), (1, 200), (2, 403), (1, 200)):
                began = time.monotonic()
                answer = await house.admin.post(f"{path}/activate", json={"version": version})
                assert answer.status_code == 200
                while any(not into or into[-1][1] != status for into in seen):
                    await asyncio.sleep(0.005)
                firsts = [
                    next(at for at, code in into if at >= began and code == status) for into in seen
                ]
                took.append(max(firsts) - began)
                for into, first in zip(seen, firsts, strict=True):
                    assert {code for at, code in into if at >= first} == {status}
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            figure(f"in force on two workers after {', '.join(f'{s * 1000:.0f}' for s in took)} ms")
            assert min(took) <= 1  # a busy machine spoils one or another

    run(scenario())
