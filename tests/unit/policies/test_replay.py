"""A decision is made again from its facts, with another version of one policy."""

import msgspec
import pytest

from policies.candidates import Live
from policies.compile import compile_policies
from policies.document import PolicyDocument
from policies.facts import DECODER, DocumentRef, Record, Recorder, Standing
from policies.panel import Panel
from policies.replay import Draft, Outcome, Replayer
from policies.route import Plan, decide
from tests.policy_builders import GATEWAY, a_candidate, a_document, an_ask, seen_as

CANDIDATES = (
    a_candidate("bk_us", jurisdictions=frozenset({"US"}), cost_input_picos=1),
    a_candidate("bk_eu"),
)
OPEN, HOME, DESK = (
    a_document(),
    a_document(require={"residency": ["EU"]}),
    a_document(require={"residency": ["EU"]}, match={"tags": {"app": ["desk"]}}),
)
REF = DocumentRef("team", 2, "a-policy", "policy_1", 1)


def recorded(document: PolicyDocument, **changes: object) -> tuple[Record, Standing]:
    """A decision as it was made under this document of a team."""
    policy = compile_policies([("team", 2, "a-policy", document)], "chat-default")
    standing = Standing(
        model="chat-default",
        timezone="Europe/Berlin",
        documents=(REF,),
        policy=policy,
        candidates=CANDIDATES,
        gateway_jurisdictions=GATEWAY,
    )
    live = seen_as(bk_eu=Live(ttft_p95_us=5, samples=30))
    routed = decide(Panel(policy, CANDIDATES), an_ask(), live, GATEWAY, 9)
    assert isinstance(routed, Plan)
    packed = Recorder(standing).facts(an_ask(), live, routed.verdicts, routed.attempts, 9, 5)
    record = Record("req_1", "tenant_1", ("team_0", "team_1"), "key_1", {}, DECODER.decode(packed))
    return msgspec.structs.replace(record, **changes), standing


def draft(document: PolicyDocument, kind: str = "team", scope_id: str = "team_1") -> Draft:
    return Draft("policy_1", 2, "a-policy", kind, scope_id, document)


def test_the_version_that_was_in_force_decides_as_it_did() -> None:
    for document in (OPEN, HOME):
        record, standing = recorded(document)
        again = Replayer(draft(document), {REF: document}.__getitem__).again(record, standing)
        assert again is not None
        assert not again.changed
        assert again.before == again.after


def test_another_version_stands_in_the_place_of_the_one_that_was_in_force() -> None:
    record, standing = recorded(HOME)
    again = Replayer(draft(OPEN), lambda _: HOME).again(record, standing)

    assert again is not None
    assert (again.before, again.after) == (Outcome((1,)), Outcome((0, 1)))
    assert again.first(again.after) == CANDIDATES[0]


def test_a_new_policy_joins_those_that_were_in_force() -> None:
    record, standing = recorded(OPEN)
    new = Draft("policy_2", 1, "new", "tenant", "tenant_1", HOME)
    again = Replayer(new, lambda _: OPEN).again(record, standing)

    assert again is not None
    assert again.after == Outcome((1,))


def test_what_nobody_may_serve_is_a_refusal_with_its_code() -> None:
    record, standing = recorded(OPEN)
    nowhere = a_document(require={"residency": ["JP"]})
    again = Replayer(draft(nowhere), lambda _: OPEN).again(record, standing)

    assert again is not None
    assert again.after == Outcome((), "residency_violation")
    assert again.first(again.after) is None


def test_what_a_budget_refused_is_compared_as_the_plan_that_it_was() -> None:
    record, standing = recorded(OPEN)
    facts = msgspec.structs.replace(record.facts, refusal="insufficient_quota")
    unpaid = msgspec.structs.replace(record, facts=facts)
    again = Replayer(draft(OPEN), lambda _: OPEN).again(unpaid, standing)

    assert again is not None
    assert not again.changed


def test_a_draft_that_asks_for_a_tag_speaks_of_requests_with_it_only() -> None:
    for tags, order in (({"app": "desk"}, (1,)), ({"app": "web"}, (0, 1)), ({}, (0, 1))):
        record, standing = recorded(OPEN, tags=tags)
        again = Replayer(draft(DESK), lambda _: OPEN).again(record, standing)
        assert again is not None
        assert again.after == Outcome(order)


@pytest.mark.parametrize(
    ("kind", "scope_id", "covers"),
    [
        ("tenant", "tenant_1", True),
        ("tenant", "tenant_2", False),
        ("team", "team_0", True),
        ("team", "team_9", False),
        ("key", "key_1", True),
        ("key", "key_2", False),
    ],
)
def test_a_draft_covers_what_is_below_its_scope(kind: str, scope_id: str, covers: bool) -> None:
    record, standing = recorded(OPEN)
    again = Replayer(draft(HOME, kind, scope_id), lambda _: OPEN).again(record, standing)

    assert (again is not None) is covers
