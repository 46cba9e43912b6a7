from policies.compile import compile_policies
from policies.explain import explain_policy
from policies.team_hours import HourCeiling, together
from tests.policy_builders import a_document


def test_of_each_team_the_least_ceiling_counts_and_of_one_nothing_is_said_of_another() -> None:
    tenants, teams = HourCeiling("tenant", "ten_1", 50), HourCeiling("team", "team_1", 70)

    found = together((tenants, teams), (HourCeiling("team", "team_1", 20),))

    assert found == (tenants, HourCeiling("team", "team_1", 20))
    assert together(found, (teams,)) == found


def test_documents_of_every_scope_bound_each_its_team_and_say_which_did() -> None:
    scopes = {"tenant": "ten_1", "team": "team_1", "key": "key_1"}
    documents = [
        (
            kind,
            depth,
            kind,
            a_document(name=kind, scope={kind: of}, cost={"max_per_team_hour": "5"}),
        )
        for depth, (kind, of) in enumerate(scopes.items())
    ]

    policy = compile_policies(documents, "chat-default")

    assert policy.hour_ceilings == tuple(HourCeiling(*one, 5 * 10**12) for one in scopes.items())
    assert policy.sources["hour_ceilings"] == "tenant, team, key"
    assert explain_policy(policy)["max_per_team_hour"]["value"] == [
        {"team_of": {kind: of}, "most": "5"} for kind, of in scopes.items()
    ]
