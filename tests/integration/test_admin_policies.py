"""Policies: drafted, put in force, superseded, rolled back, explained."""

from typing import Any

import httpx

from gateway.stores.sql import configuration
from tests.admin_server import AdminServer, Made, refused


def test_what_is_attached_to_a_scope_never_moves(admin_client: httpx.Client, made: Made) -> None:
    tenant = made.tenant()
    team = made.team(tenant["id"])
    scope, other = {"tenant": tenant["id"]}, {"team": team["id"]}
    budget = made.make("budgets", scope=scope, amount="1", period="day")
    policy = made.make("policies", scope=scope, name="p", prefer="fastest")

    moved = {"scope": other, "amount": "1", "period": "day"}
    refused(admin_client.put(f"/budgets/{budget['id']}", json=moved), 422, "scope")
    moved = {"scope": other, "name": "p", "prefer": "fastest"}
    refused(admin_client.put(f"/policies/{policy['id']}", json=moved), 422, "scope")


def test_a_cheaper_model_that_nobody_has_is_warned_of(
    admin_client: httpx.Client, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    budget = {"on_exhausted": {"degrade_to": "no-such-model"}}
    policy = made.make("policies", scope=scope, name="cheaper", budget=budget)
    assert "no-such-model" in "".join(policy["warnings"])

    path = f"/policies/{policy['id']}"
    refuses = {"scope": scope, "name": "cheaper", "budget": {"on_exhausted": "refuse"}}
    assert admin_client.put(path, json=refuses).json()["warnings"] == []
    assert len(admin_client.get(path, params={"version": 1}).json()["warnings"]) == 1


def test_a_policy_for_a_model_that_nobody_has_is_warned_of(
    admin_client: httpx.Client, made: Made
) -> None:
    scope, match = {"tenant": made.tenant()["id"]}, {"models": ["chat-defualt"]}
    policy = made.make("policies", scope=scope, name="typo", match=match)
    (warning,) = policy["warnings"]
    assert "match.models names 'chat-defualt', and there is no model of that name" in warning

    both = {"scope": scope, "name": "typo", "match": match}
    both["budget"] = {"on_exhausted": {"degrade_to": "chat-defualt"}}
    answer = admin_client.put(f"/policies/{policy['id']}", json=both)
    assert len(answer.json()["warnings"]) == 2, "one does not hide the other"


def test_a_policy_is_drafted_activated_superseded_and_rolled_back(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    policy = made.make("policies", scope=scope, name="eu", require={"residency": ["EU"]})
    path = f"/policies/{policy['id']}"
    assert (policy["version"], policy["state"], policy["active_version"]) == (1, "draft", None)
    assert _active(admin_house, policy) == []

    assert admin_client.post(f"{path}/activate").json()["active_version"] == 1
    second = {"scope": scope, "name": "eu", "require": {"residency": ["DE"]}}
    drafted = admin_client.put(path, json=second).json()
    assert (drafted["version"], drafted["state"], drafted["active_version"]) == (2, "draft", 1)

    assert admin_client.post(f"{path}/activate", json={"version": 2}).json()["active_version"] == 2
    back = admin_client.post(f"{path}/activate", json={"version": 1}).json()
    assert back["active_version"] == 1
    assert back["require"] == {"residency": ["EU"]}
    assert [each["state"] for each in back["versions"]] == ["retired", "active"]
    assert _active(admin_house, policy) == [1]

    assert admin_client.get(path, params={"version": 2}).json()["require"] == {"residency": ["DE"]}
    assert admin_client.post(f"{path}/retire").json()["active_version"] is None
    refused(admin_client.post(f"{path}/activate", json={"version": 9}), 422, "version")


def _active(admin_house: AdminServer, policy: dict[str, Any]) -> list[int]:
    found = configuration.load(admin_house.engine).policies
    return [each.policy_version for each in found if each.id == policy["id"]]


def test_a_policy_in_force_has_no_shadow_of_itself(admin_client: httpx.Client, made: Made) -> None:
    scope = {"tenant": made.tenant()["id"]}
    policy = made.make("policies", scope=scope, name="p", prefer="fastest")
    path = f"/policies/{policy['id']}"

    assert admin_client.post(f"{path}/shadow").json()["shadow_version"] == 1
    admin_client.post(f"{path}/activate")
    refused(admin_client.post(f"{path}/shadow"), 409)


def test_a_policy_is_refused_with_every_problem_and_its_remedy(
    admin_client: httpx.Client, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    body = {
        "scope": scope,
        "name": "p",
        "require": {"residency": ["UK"], "colour": "red"},
        "budget": {"hold": "by-the-hour"},
    }

    answer = admin_client.post("/policies", json=body)

    refused(answer, 422, "require.residency")
    refused(answer, 422, "require.colour")
    refused(answer, 422, "budget.hold")
    assert all(each["remedy"] for each in answer.json()["errors"])


def test_explain_judges_every_candidate_and_says_why(
    admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant()
    team = made.team(tenant["id"])
    key = made.key(team["id"])
    eu, us = made.backend(jurisdictions=["DE"]), made.backend(jurisdictions=["US"])
    targets = [{"backend_id": each["id"], "upstream_model": "m"} for each in (eu, us)]
    model = made.make("models", name=made.name(), targets=targets)
    for meter in ("input", "output"):
        made.make(
            "prices",
            book="charge",
            model=model["name"],
            meter=meter,
            amount_per_million="1",
            currency="EUR",
        )
    policy = made.make(
        "policies", scope={"team": team["id"]}, name="eu", require={"residency": ["EU"]}
    )
    admin_client.post(f"/policies/{policy['id']}/activate")

    def explain(**asked: Any) -> dict[str, Any]:
        body = {"key_id": key["id"], "model": model["name"], "input_tokens": 10} | asked
        return dict(admin_client.post("/policies/explain", json=body).json())

    served = explain()
    eligible = {each["backend_id"]: each["eligible"] for each in served["candidates"]}
    assert eligible == {eu["id"]: True, us["id"]: False}
    assert [each["backend_id"] for each in served["attempts"]] == [eu["id"]]
    assert any("residency" in reason for reason in served["candidates"][1]["reasons"])
    assert explain(model="nothing")["refusal"]["code"] == "model_not_found"
    admin_client.post(f"/keys/{key['id']}/revoke")
    assert explain()["code"] == "invalid_value"
