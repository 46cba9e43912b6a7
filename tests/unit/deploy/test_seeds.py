"""The shipped configurations can be read, and their prices cover what they offer."""

from pathlib import Path

import pytest

from gateway.commands import documents

SEEDS = Path(__file__).parents[3] / "deploy" / "seed"


@pytest.mark.parametrize("name", ["demo", "first"])
def test_every_model_of_a_seed_has_a_charge(name: str) -> None:
    found = documents.read([SEEDS / f"{name}.yaml"])

    models = {each.fields["name"] for each in found if each.kind == "model"}
    charged = {each.fields.get("model") for each in found if each.kind == "price"}
    assert models <= charged


def test_the_demo_has_two_tenants_and_teams_nested_three_deep() -> None:
    found = documents.read([SEEDS / "demo.yaml"])

    assert sum(each.kind == "tenant" for each in found) == 2
    parents = {e.fields["name"]: e.fields.get("parent") for e in found if e.kind == "team"}
    assert parents["helpdesk"] == "support-eu"
    assert parents["support-eu"] == "support"
    assert parents["support"] is None
