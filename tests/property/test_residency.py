"""No content of a request leaves its permitted jurisdictions, on any attempt (L8)."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from policies.candidates import Live
from policies.compile import compile_policies
from policies.decision import Deny, DenyCode
from policies.document import parse
from policies.failover import Attempts, Outcome, RetryBudget
from policies.residency import expand, permits, summary
from policies.route import Plan, route
from tests.policy_builders import a_candidate, an_ask
from tests.residency.law import is_lawful

NAMES = ["EU", "EEA", "EU@2020-02-01", "DE", "FR", "IE", "NO", "IS", "CH", "US", "GB", "JP"]
LABELS = [*NAMES, "Germany", "eu", "*", ""]
PERMITTED = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
JURISDICTIONS = st.frozensets(st.sampled_from(LABELS), max_size=4)


@given(PERMITTED, JURISDICTIONS, JURISDICTIONS)
@example(["EU"], frozenset({"EU"}), frozenset({"IE"}))
@example(["DE", "FR"], frozenset({"EU"}), frozenset({"DE"}))
def test_permission_is_what_the_law_says(
    permitted: list[str], backend: frozenset[str], gateway: frozenset[str]
) -> None:
    lawful = is_lawful(permitted, backend) and is_lawful(permitted, gateway)

    assert permits(expand(permitted), backend, gateway) == lawful


@given(st.lists(PERMITTED, min_size=1, max_size=4), JURISDICTIONS)
def test_intersected_permissions_permit_what_each_of_them_permits(
    permissions: list[list[str]], backend: frozenset[str]
) -> None:
    together = frozenset.intersection(*(expand(each) for each in permissions))

    assert permits(together, backend, backend) == all(
        permits(expand(each), backend, backend) for each in permissions
    )


@given(PERMITTED)
def test_a_summary_means_what_it_summarises(permitted: list[str]) -> None:
    expanded = expand(permitted)

    assert expand(summary(expanded).split(", ")) == expanded


@st.composite
def backends(draw: st.DrawFn) -> list[Any]:
    count = draw(st.integers(1, 5))
    return [
        a_candidate(
            f"bk_{number}",
            jurisdictions=draw(JURISDICTIONS),
            cost_input_picos=draw(st.integers(0, 3)),
            weight=draw(st.integers(0, 3)),
        )
        for number in range(count)
    ]


@st.composite
def figures(draw: st.DrawFn) -> dict[tuple[str, str], Live]:
    return {
        (f"bk_{number}", "smollm2"): Live(
            available=draw(st.booleans()),
            in_flight=draw(st.integers(0, 3)),
            ttft_p95_us=draw(st.none() | st.integers(1, 10**6)),
        )
        for number in range(5)
    }


@given(
    st.lists(PERMITTED, min_size=1, max_size=3),
    backends(),
    figures(),
    JURISDICTIONS,
    st.integers(0, 2**32 - 1),
    st.sampled_from(["cheapest", "fastest", "balanced", ["edge", "on_prem"]]),
    st.lists(st.sampled_from(list(Outcome)), max_size=6),
)
def test_no_attempt_and_no_retry_leaves_the_permitted_jurisdictions(
    permissions: list[list[str]],
    candidates: list[Any],
    live: dict[tuple[str, str], Live],
    gateway: frozenset[str],
    draw: int,
    prefer: Any,
    outcomes: list[Outcome],
) -> None:
    documents = [
        parse(
            {
                "name": f"p{depth}",
                "scope": {"team": "t"},
                "require": {"residency": permitted},
                "prefer": prefer,
            }
        )
        for depth, permitted in enumerate(permissions)
    ]
    policy = compile_policies(
        [("team", depth, each.name, each) for depth, each in enumerate(documents)], "chat-default"
    )

    routed = route(policy, an_ask(), candidates, live, gateway, draw)

    if isinstance(routed, Plan):
        for tried in driven(routed, outcomes):
            for permitted in permissions:
                assert is_lawful(permitted, tried.jurisdictions)
                assert is_lawful(permitted, gateway)
    else:
        lawful = [
            candidate
            for candidate in candidates
            if all(
                is_lawful(permitted, candidate.jurisdictions) and is_lawful(permitted, gateway)
                for permitted in permissions
            )
        ]
        assert isinstance(routed, Deny)
        assert routed.code == (DenyCode.NO_BACKEND if lawful else DenyCode.RESIDENCY_VIOLATION)
        assert all(not live[(each.backend_id, "smollm2")].available for each in lawful)


def driven(plan: Plan, outcomes: list[Outcome]) -> list[Any]:
    attempts = Attempts(plan.attempts, RetryBudget())
    tried = [attempts.begin(0)]
    for now_us, outcome in enumerate(outcomes):
        following = attempts.after(outcome, now_us, first_byte_sent=False)
        if following is None:
            break
        tried.append(following)
    return tried
