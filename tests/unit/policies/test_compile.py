import itertools
from typing import Any

import pytest

from policies.compile import (
    DEFAULT,
    EffectivePolicy,
    Scoped,
    compile_policies,
    for_shadow,
    required,
    within,
)
from policies.document import load
from policies.objectives import Objective
from tests.policy_builders import a_document, only


def compiled(*scoped: Scoped, model: str = "chat-default") -> EffectivePolicy:
    return compile_policies(scoped, model)


def at_tenant(name: str = "t", **sections: Any) -> Scoped:
    return ("tenant", 0, name, a_document(name=name, **sections))


def at_team(name: str = "s", depth: int = 1, **sections: Any) -> Scoped:
    return ("team", depth, name, a_document(name=name, **sections))


def at_key(name: str = "k", **sections: Any) -> Scoped:
    return ("key", 1000, name, a_document(name=name, **sections))


def test_no_document_is_the_default() -> None:
    policy = compiled()

    assert policy is DEFAULT
    assert policy == EffectivePolicy()
    assert (policy.prefer, policy.clamp) == ("cheapest", True)
    assert (policy.least_output, policy.default_output, policy.max_attempts) == (64, 1024, 3)
    assert policy.residency is None


def test_a_document_applies_to_the_models_it_names() -> None:
    scoped = at_team(match={"models": ["chat-default", "chat-small"]}, prefer="fastest")

    assert compiled(scoped).prefer == "fastest"
    assert compiled(scoped, model="embed") is DEFAULT


def test_permitted_jurisdictions_intersect() -> None:
    policy = compiled(
        at_tenant(require={"residency": ["EEA", "CH"]}),
        at_team(require={"residency": ["EU", "US"]}),
        at_key(require={"residency": ["DE", "FR", "CH"]}),
    )

    assert policy.residency == only("DE", "FR")
    assert policy.sources["residency"] == "t, s, k"


def test_disjoint_permissions_permit_nothing() -> None:
    policy = compiled(
        at_tenant(require={"residency": ["EU"]}), at_team(require={"residency": ["US"]})
    )

    assert policy.residency == frozenset()


def test_placements_intersect_and_capabilities_unite() -> None:
    policy = compiled(
        at_tenant(require={"placements": ["on_prem", "edge"], "capabilities": ["tools"]}),
        at_team(require={"placements": ["edge", "cloud"], "capabilities": ["vision"]}),
    )

    assert policy.placements == {"edge"}
    assert policy.capabilities == {"tools", "vision"}
    assert policy.sources["capabilities"] == "t, s"


def test_the_lowest_ceiling_stands_wherever_it_was_written() -> None:
    cheap, dear = {"max_per_request": "0.05"}, {"max_per_request": "0.50"}

    assert compiled(at_tenant(cost=cheap), at_key(cost=dear)).max_per_request_picos == 5 * 10**10
    assert compiled(at_tenant(cost=dear), at_key(cost=cheap)).max_per_request_picos == 5 * 10**10
    assert compiled(at_tenant(cost=cheap), at_key(cost=dear)).sources == {
        "max_per_request_picos": "t"
    }


def test_amounts_per_million_become_whole_picos_a_token() -> None:
    policy = compiled(
        at_team(cost={"max_input_per_million": "0.000001", "max_output_per_million": "15.00"})
    )

    assert policy.max_input_picos_per_token == 1
    assert policy.max_output_picos_per_token == 15_000_000


def test_objectives_take_the_minimum_and_a_refusal_on_breach_stays() -> None:
    policy = compiled(
        at_tenant(slo={"ttft_p95_ms": 2000, "on_breach": "refuse"}),
        at_team(slo={"ttft_p95_ms": 800, "tpot_p95_ms": 60, "on_breach": "prefer_faster"}),
    )

    assert policy.objectives == (Objective("tpot", 60_000), Objective("ttft", 800_000))
    assert policy.on_breach == "refuse"
    assert policy.sources["on_breach"] == "t"
    assert policy.sources["objectives"] == "s"


def test_a_breach_refused_by_the_inner_scope_is_refused() -> None:
    policy = compiled(
        at_tenant(slo={"on_breach": "prefer_faster"}), at_team(slo={"on_breach": "refuse"})
    )

    assert policy.on_breach == "refuse"
    assert policy.sources["on_breach"] == "s"


def test_objectives_keep_their_own_percentile_and_window_beside_each_other() -> None:
    policy = compiled(
        at_tenant(slo={"ttft_p95_ms": 800}),
        at_team(slo={"ttft_p95_ms": 2000, "percentile": 99, "window_s": 20}),
        at_key(slo={"ttft_p95_ms": 1500, "percentile": 99, "window_s": 20, "total_p95_ms": 9}),
    )

    assert policy.objectives == (
        Objective("total", 9_000, 99, 20),
        Objective("ttft", 800_000),
        Objective("ttft", 1_500_000, 99, 20),
    )
    assert policy.sources["objectives"] == "t, s, k"


def test_a_doubt_and_a_breach_are_met_as_strictly_as_anybody_asks() -> None:
    policy = compiled(
        at_tenant(slo={"on_breach": "shed", "on_no_data": "allow"}),
        at_team(slo={"on_breach": "prefer_faster", "on_no_data": "refuse"}),
        at_key(slo={"on_no_data": "avoid"}),
    )

    assert (policy.on_breach, policy.on_no_data) == ("shed", "refuse")
    assert (policy.sources["on_breach"], policy.sources["on_no_data"]) == ("t", "s")


def test_classes_of_data_unite_and_the_largest_context_is_wanted() -> None:
    policy = compiled(
        at_tenant(require={"data_classes": ["health"], "max_context": 32_000}),
        at_team(require={"data_classes": ["payment"], "max_context": 8_000}),
    )

    assert policy.data_classes == {"health", "payment"}
    assert policy.least_context == 32_000


def test_what_the_content_is_goes_with_it_to_another_model() -> None:
    asked = EffectivePolicy(data_classes=frozenset({"health"}), sources={"data_classes": "ward"})
    served = EffectivePolicy(data_classes=frozenset({"payment"}), sources={"data_classes": "p"})

    assert within(served, asked).data_classes == {"health", "payment"}
    assert within(EffectivePolicy(), asked).data_classes == {"health"}
    assert within(served, EffectivePolicy()) is served


def test_the_nearest_scope_chooses() -> None:
    policy = compiled(
        at_tenant(prefer="cheapest", budget={"clamp": "on", "default_output": 256}),
        at_team(prefer="fastest", budget={"clamp": "off", "least_output": 8}),
        at_key(prefer=["edge", "cloud"]),
    )

    assert policy.prefer == ("edge", "cloud")
    assert policy.clamp is False
    assert (policy.least_output, policy.default_output) == (8, 256)
    assert policy.sources == {
        "prefer": "k",
        "clamp": "s",
        "least_output": "s",
        "default_output": "t",
    }


def test_a_full_hold_or_the_smaller_slice_of_any_scope_stands() -> None:
    sliced, full = {"hold": "sliced", "slice": 128}, {"hold": "full"}

    assert compiled().hold == "full"
    assert (compiled(at_team(budget=sliced)).hold, compiled(at_team(budget=sliced)).slice) == (
        "sliced",
        128,
    )
    for outer, inner in ((full, sliced), (sliced, full)):
        policy = compiled(at_tenant(budget=outer), at_key(budget=inner))
        assert policy.hold == "full"
        assert policy.sources["hold"] == ("t" if outer is full else "k")
    narrow, wide = {"slice": 64}, {"slice": 512}
    assert compiled(at_tenant(budget=narrow), at_key(budget=wide)).slice == 64


def test_the_nearest_scope_says_which_model_is_cheaper_unless_one_refuses() -> None:
    small, tiny = {"degrade_to": "chat-small"}, {"degrade_to": "chat-tiny"}

    def degrade_to(tenant: Any, key: Any) -> tuple[str | None, str]:
        policy = compiled(
            at_tenant(budget={"on_exhausted": tenant}), at_key(budget={"on_exhausted": key})
        )
        return policy.degrade_to, policy.sources["degrade_to"]

    assert compiled().degrade_to is None
    assert degrade_to(small, tiny) == ("chat-tiny", "k")
    assert degrade_to("refuse", tiny) == (None, "t")
    assert degrade_to(small, "refuse") == (None, "k")


def test_what_was_asked_under_one_policy_goes_nowhere_else_under_another() -> None:
    asked = compiled(at_tenant(require={"residency": ["EU"], "placements": ["edge", "cloud"]}))
    loose = compiled(at_key(prefer="fastest"))
    other = compiled(at_key(require={"residency": ["DE", "US"], "placements": ["edge"]}))

    assert within(loose, asked).residency == asked.residency
    assert within(loose, asked).sources["residency"] == "t"
    assert within(loose, asked).prefer == "fastest"
    assert within(other, asked).residency == frozenset({"DE"})
    assert within(other, asked).placements == frozenset({"edge"})
    assert within(other, asked).sources["placements"] == "t, k"
    assert within(loose, loose) is loose


def test_a_choice_repeated_by_the_nearest_scope_is_its_own() -> None:
    policy = compiled(at_tenant(prefer="fastest"), at_team(prefer="fastest"))

    assert policy.sources["prefer"] == "s"


def test_an_inner_team_is_nearer_than_an_outer_one() -> None:
    policy = compiled(
        at_team("z-outer", 1, prefer="fastest"), at_team("a-inner", 2, prefer="balanced")
    )

    assert policy.prefer == "balanced"


def test_documents_of_one_scope_merge_in_name_order() -> None:
    policy = compiled(at_team("b", prefer="fastest"), at_team("a", prefer="balanced"))

    assert policy.prefer == "fastest"


def test_the_order_in_which_documents_are_given_does_not_matter() -> None:
    scoped = (
        at_tenant(require={"residency": ["EU"]}, prefer="fastest"),
        at_team(cost={"max_per_request": "1"}, prefer="cheapest"),
        at_key(retries={"max_attempts": 5}),
    )

    assert len({str(compiled(*order)) for order in itertools.permutations(scoped)}) == 1


def test_a_child_cannot_raise_the_number_of_attempts() -> None:
    few, many = {"max_attempts": 2}, {"max_attempts": 9}

    assert compiled(at_tenant(retries=few), at_key(retries=many)).max_attempts == 2
    assert compiled(at_key(retries=many)).max_attempts == 9


def test_when_to_hedge_is_a_choice_and_how_much_a_ceiling() -> None:
    outer = at_tenant(retries={"hedge_after_ms": 500, "hedge_percent": 3})
    inner = at_key(retries={"hedge_after_ms": 100, "hedge_percent": 50})

    policy = compiled(outer, inner)
    assert (policy.hedge_after_ms, policy.hedge_percent) == (100, 3)
    assert compiled(at_tenant(retries={"hedge_percent": 0}), inner).hedge_percent == 0
    assert (compiled().hedge_after_ms, compiled().hedge_percent) == (None, 5)


def test_a_child_can_only_lower_its_priority() -> None:
    assert compiled().priority == 9
    assert compiled(at_tenant(priority=4), at_key(priority=7)).priority == 4
    assert compiled(at_tenant(priority=4), at_key(priority=2)).priority == 2


@pytest.mark.parametrize(
    "stored",
    [
        b"garbage",
        b'{"name":"n","scope":{"team":"t"},"require":{"moods":["blue"]}}',
        b'{"name":"n","scope":{"team":"t"},"cost":{"max_per_team_year":"1"}}',
        b'{"name":"n","scope":{"team":"t"},"match":{"tags":{}}}',
        b'{"name":"n","scope":{"team":"t"},"guard":true}',
    ],
)
def test_a_restriction_that_cannot_be_read_refuses_everything(stored: bytes) -> None:
    policy = compile_policies([("team", 1, "from-tomorrow", load(stored))], "chat-default")

    assert policy.residency == frozenset()
    assert policy.sources["residency"] == "from-tomorrow"


def test_a_preference_that_cannot_be_read_is_forgone() -> None:
    stored = b'{"name":"n","scope":{"team":"t"},"budget":{"hold":"by-the-hour"},"experiment":{}}'

    policy = compile_policies([("team", 1, "n", load(stored))], "chat-default")

    assert policy == EffectivePolicy()


def test_a_shadow_keeps_all_that_is_required_of_the_request_and_is_sent_once() -> None:
    shadow = {"model": "next", "percent": 5, "payer": {"key": "key_lab"}}
    asked = compiled(
        at_tenant(
            name="trial",
            match={"models": ["chat-default"]},
            require={
                "residency": ["EU"],
                "capabilities": ["tools"],
                "placements": ["cloud", "edge"],
                "data_classes": ["health"],
                "max_context": 8_000,
            },
            cost={"max_per_request": "0.01"},
            experiment={"name": "next", "shadow": shadow},
        )
    )
    asking = compiled(at_team(require={"residency": ["DE", "FR", "US"]}), model="next")
    paying = compiled(
        at_key(
            name="lab",
            require={"residency": ["FR", "DE"], "placements": ["edge", "on_prem"]},
            cost={"max_per_request": "5"},
            budget={"hold": "sliced", "on_exhausted": {"degrade_to": "small"}},
            retries={"max_attempts": 4, "hedge_after_ms": 5},
            idempotency={"store_answers": "on"},
        ),
        model="next",
    )
    policy = for_shadow(paying, required(asked, asking))

    assert policy.residency == only("DE", "FR")
    assert policy.placements == {"edge"}
    assert (policy.data_classes, policy.capabilities) == ({"health"}, {"tools"})
    assert policy.least_context == 8_000
    assert policy.max_per_request_picos == 5 * 10**12  # its payer's, who pays for it
    assert (policy.max_attempts, policy.hedge_after_ms, policy.degrade_to) == (1, None, None)
    assert (policy.hold, policy.store_answers, policy.experiment) == ("full", False, None)
    assert policy.priority == 1
    assert policy.sources["residency"] == "s, trial, lab"
    assert policy.sources["max_attempts"] == "trial"
