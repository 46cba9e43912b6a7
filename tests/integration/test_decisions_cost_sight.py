"""What a backend costs the operator is in no single decision, replay or disagreement that a tenant
is shown; the platform sees it in the same places.
"""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.booked import ledger_rows
from tests.house import House, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

ROLES = ("tenant_admin", "auditor")
ASKED = {"model": "chat", "messages": [{"role": "user", "content": "hello there"}]}


def costs(tree: Any) -> set[str]:
    """Every amount in the tree that is said to be a cost."""
    if isinstance(tree, list):
        return set().union(*map(costs, tree))
    if not isinstance(tree, dict):
        return set()
    own = {tree[name] for name in ("cost", "expected_cost") if tree.get(name) is not None}
    return own.union(*map(costs, tree.values()))


async def looks(client: httpx.AsyncClient, decision: str, policy: str) -> list[httpx.Response]:
    return [
        await client.get(f"/decisions/{decision}"),
        await client.get("/decisions", params={"limit": 10}),
        await client.get(f"/policies/{policy}/disagreement"),
        await client.post("/policies/replay", json={"policy_id": policy}),
    ]


async def a_decision(house: House, secret: str) -> str:
    headers = {"authorization": f"Bearer {secret}", "x-meterhouse-explain": "1"}
    answer = await house.client.post(
        "/v1/chat/completions", json=ASKED | {"max_tokens": 50}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["x-meterhouse-decision"]


@pytest.mark.parametrize("role", ROLES)
def test_a_tenant_sees_no_cost_in_what_was_decided_or_would_have_been(
    tmp_path: Path, store_url: str, role: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            of = {"book": "cost", "backend_id": world.backends[0]["id"], "upstream_model": "m"}
            for meter, amount in (("input", "7.654321"), ("output", "9.876543")):
                more = {"amount_per_million": amount, "currency": "USD"}
                await house.make("prices", meter=meter, **more, **of)
            scope = {"tenant": world.tenant["id"]}
            policy = await house.make("policies", name="home", scope=scope, prefer="cheapest")
            await house.admin.post(f"/policies/{policy['id']}/shadow", json={})
            token = await house.make("admin-tokens", name="theirs", role=role, scope=scope)
            await house.in_force()
            decision = await a_decision(house, world.secret)
            assert len(await ledger_rows(house)) == 1

            ours = await looks(house.admin, decision, policy["id"])
            theirs = {"authorization": f"Bearer {token['secret']}"}
            house.admin.headers.update(theirs)
            shown = await looks(house.admin, decision, policy["id"])

        secret = [costs(answer.json()) for answer in ours]
        assert [bool(found) for found in secret] == [True, False, True, True]
        for answer in shown:
            assert answer.status_code == 200, answer.text
            assert costs(answer.json()) == set()
            numbers = set(re.findall(r"[0-9]+\.[0-9]+", answer.text))
            assert numbers.isdisjoint(set().union(*secret)), answer.text

    run(scenario())
