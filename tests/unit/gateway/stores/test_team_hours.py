from typing import Any

from gateway.stores.sql.rows import Key, Policy, Team
from gateway.stores.team_hours import team_hours
from policies.document import canonical, parse

TEAMS = [
    Team(id="t_a", tenant_id="ten", name="a"),
    Team(id="t_b", tenant_id="ten", name="b"),
    Team(id="t_a1", tenant_id="ten", parent_id="t_a", name="a1"),
    Team(id="t_else", tenant_id="other", name="else"),
]
KEYS = [Key(id="k", tenant_id="ten", team_id="t_a1", name="app")]


def a_policy(kind: str, scope_id: str, **sections: Any) -> Policy:
    written = {"name": "p", "scope": {kind: scope_id}} | sections
    return Policy(
        id="pol", policy_version=1, name="p", scope_kind=kind, scope_id=scope_id, tenant_id="ten",
        state="active", document=canonical(parse(written)), activated_at_us=7,
    )  # fmt: skip


def counted(kind: str, scope_id: str, **sections: Any) -> list[str]:
    found = team_hours([a_policy(kind, scope_id, **sections)], TEAMS, KEYS)
    assert all(one.scope == (kind, scope_id) and one.counts_from_us == 7 for one in found)
    return [one.team_id for one in found]


def test_a_policy_counts_its_team_that_of_its_key_or_every_outermost_one_of_its_tenant() -> None:
    cost = {"max_per_team_hour": "5"}

    assert counted("tenant", "ten", cost=cost) == ["t_a", "t_b"]
    assert counted("team", "t_a1", cost=cost) == ["t_a1"]
    assert counted("key", "k", cost=cost) == ["t_a1"]
    assert counted("key", "gone", cost=cost) == []


def test_a_policy_without_a_ceiling_counts_nothing() -> None:
    assert counted("tenant", "ten", cost={"max_per_request": "5"}) == []
    assert counted("tenant", "ten", match={"models": ["max_per_team_hour"]}) == []


def test_each_activation_has_accounts_of_its_own() -> None:
    (one,) = team_hours([a_policy("key", "k", cost={"max_per_team_hour": "5"})], TEAMS, KEYS)

    assert one.account_id == "pol.7.t_a1"
