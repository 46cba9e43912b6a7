"""A document can only narrow what the documents above it allow (L11)."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from policies.compile import EffectivePolicy, Scoped, compile_policies, within
from policies.document import canonical, load, parse
from policies.filters import Reason, case_of, judge
from policies.match import Occasion
from policies.objectives import View
from policies.occasions import Occasions
from policies.route import NOWHERE, Plan, route
from tests.policy_builders import a_candidate, an_ask
from tests.policy_documents import DOCUMENTS, PLACEMENTS, TAGGED, scoped

CANDIDATES = st.lists(
    st.builds(
        a_candidate,
        backend_id=st.sampled_from(["bk_1", "bk_2", "bk_3"]),
        jurisdictions=st.frozensets(st.sampled_from(["DE", "FR", "NO", "CH", "US", "EU", "??"])),
        placement=st.sampled_from(PLACEMENTS),
        capabilities=st.frozensets(st.sampled_from(["chat", "tools", "vision"])),
        charge_input_picos=st.sampled_from([None, 0, 10**6, 10**7]),
        charge_output_picos=st.sampled_from([None, 0, 10**6, 10**7]),
    ),
    max_size=4,
)
GATEWAYS = st.frozensets(st.sampled_from(["DE", "US", "CH"]), max_size=2)


def inside(inner: frozenset[str] | None, outer: frozenset[str] | None) -> bool:
    return outer is None or (inner is not None and inner <= outer)


def below(inner: int | None, outer: int | None) -> bool:
    return outer is None or (inner is not None and inner <= outer)


BREACHES = ["prefer_faster", "shed", "refuse"]
DOUBTS = ["allow", "avoid", "refuse"]


def limits(policy: EffectivePolicy) -> dict[View, int]:
    return {each.view: each.most_us for each in policy.objectives}


def hours(policy: EffectivePolicy) -> dict[tuple[str, str], int]:
    return {each.scope: each.picos for each in policy.hour_ceilings}


def is_no_wider(inner: EffectivePolicy, outer: EffectivePolicy) -> bool:
    return (
        inside(inner.residency, outer.residency)
        and inside(inner.placements, outer.placements)
        and inner.capabilities >= outer.capabilities
        and inner.data_classes >= outer.data_classes
        and (inner.least_context or 0) >= (outer.least_context or 0)
        and limits(inner).keys() >= limits(outer).keys()
        and all(limits(inner)[view] <= most for view, most in limits(outer).items())
        and hours(inner).keys() >= hours(outer).keys()
        and all(hours(inner)[scope] <= most for scope, most in hours(outer).items())
        and BREACHES.index(inner.on_breach) >= BREACHES.index(outer.on_breach)
        and below(inner.max_per_request_picos, outer.max_per_request_picos)
        and below(inner.max_input_picos_per_token, outer.max_input_picos_per_token)
        and below(inner.max_output_picos_per_token, outer.max_output_picos_per_token)
    )


@given(st.lists(scoped(), max_size=4), scoped())
def test_no_document_anywhere_widens_what_the_others_allow(
    above: list[Scoped], added: Scoped
) -> None:
    before = compile_policies(above, "chat-default")

    after = compile_policies([*above, added], "chat-default")

    assert is_no_wider(after, before)
    for ceiling in {"max_attempts", "hedge_percent", "slice", "priority"} & set(before.sources):
        assert getattr(after, ceiling) <= getattr(before, ceiling)
    if "on_no_data" in before.sources:
        assert DOUBTS.index(after.on_no_data) >= DOUBTS.index(before.on_no_data)
    if "hold" in before.sources and before.hold == "full":
        assert after.hold == "full"
    if "degrade_to" in before.sources and before.degrade_to is None:
        assert after.degrade_to is None


@given(st.lists(scoped(), max_size=3), scoped(), CANDIDATES, GATEWAYS)
def test_a_narrower_policy_never_makes_a_candidate_eligible(
    above: list[Scoped], added: Scoped, candidates: list[Any], gateway: frozenset[str]
) -> None:
    before, after = (
        judge(
            case_of(compile_policies(documents, "chat-default"), an_ask(), gateway),
            candidates,
            NOWHERE,
        )
        for documents in (above, [*above, added])
    )

    for outer, inner in zip(before, after, strict=True):
        assert outer.eligible or not inner.eligible


@given(st.lists(scoped(), max_size=3), st.lists(scoped(), max_size=3), CANDIDATES, GATEWAYS)
def test_no_other_policy_takes_a_request_where_its_own_does_not_let_it(
    own: list[Scoped], other: list[Scoped], candidates: list[Any], gateway: frozenset[str]
) -> None:
    asked, served = compile_policies(own, "chat-default"), compile_policies(other, "chat-small")

    bound = within(served, asked)

    verdicts = judge(case_of(bound, an_ask(), gateway), candidates, NOWHERE)
    at_home = judge(case_of(asked, an_ask(), gateway), candidates, NOWHERE)
    for there, here in zip(verdicts, at_home, strict=True):
        if there.eligible:
            assert not {Reason.RESIDENCY, Reason.PLACEMENT} & set(here.reasons)
    assert is_no_wider(bound, served)


OCCASIONS = st.builds(
    Occasion,
    stream=st.booleans(),
    input_tokens=st.sampled_from([0, 10, 249, 250, 251]),
    tags=st.dictionaries(st.sampled_from(["env", "job"]), st.sampled_from(["a", "b", "x"])),
    minute_of_week=st.integers(0, 10_079),
)
TAKEN_BY_TAGS = {"residency", "capabilities", "placements", "on_breach", "prefer", "sources"}
TAKEN_BY_TAGS |= {
    "data_classes",
    "least_context",
    "objectives",
    "on_no_data",
    "weights",
    "affinity",
    "hour_ceilings",
    "priority",
}
UNTOUCHED = [
    field
    for field in EffectivePolicy.__struct_fields__
    if field not in TAKEN_BY_TAGS
    and not field.startswith(("slo_", "max_per_", "max_input_", "max_output_"))
]


@given(st.lists(scoped(DOCUMENTS), max_size=4), scoped(DOCUMENTS), OCCASIONS)
def test_no_document_widens_the_policy_of_any_request(
    above: list[Scoped], added: Scoped, occasion: Occasion
) -> None:
    before, after = (
        documents.policy(documents.pattern(occasion))
        for documents in (
            Occasions(above, "chat-default"),
            Occasions([*above, added], "chat-default"),
        )
    )

    assert is_no_wider(after, before)


@given(st.lists(scoped(DOCUMENTS), max_size=3), scoped(TAGGED), OCCASIONS, OCCASIONS)
def test_no_tag_that_a_client_claims_gives_it_anything(
    above: list[Scoped], tagged: Scoped, occasion: Occasion, claimed: Occasion
) -> None:
    documents = Occasions([*above, tagged], "chat-default")
    silent = msgspec.structs.replace(occasion, tags={})
    claiming = msgspec.structs.replace(occasion, tags=claimed.tags)

    before, after = (documents.policy(documents.pattern(each)) for each in (silent, claiming))

    assert is_no_wider(after, before)
    assert after.priority <= before.priority  # others go first, if anybody
    for field in UNTOUCHED:
        assert getattr(after, field) == getattr(before, field)


@given(st.lists(scoped(), max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_documents_does_not_matter(documents: list[Scoped], random: Any) -> None:
    unique = list({each[:3]: each for each in documents}.values())
    shuffled = list(unique)
    random.shuffle(shuffled)

    assert compile_policies(shuffled, "chat-default") == compile_policies(unique, "chat-default")


@given(st.lists(scoped(), min_size=1, max_size=4))
def test_every_field_that_was_set_says_by_whom_and_no_other(documents: list[Scoped]) -> None:
    policy = compile_policies(documents, "chat-default")
    names = {name for _kind, _depth, name, _document in documents}
    default = EffectivePolicy()

    for field in EffectivePolicy.__struct_fields__:
        if field == "sources":
            continue
        if field in policy.sources:
            assert set(policy.sources[field].split(", ")) <= names
        else:
            assert getattr(policy, field) == getattr(default, field)


@given(DOCUMENTS)
def test_a_document_survives_its_canonical_form(written: dict[str, Any]) -> None:
    document = parse(written)

    assert parse(canonical(document)) == document
    assert load(canonical(document)) == document
    assert canonical(parse(canonical(document))) == canonical(document)


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_nothing_stored_can_make_loading_fail(stored: Any) -> None:

    data = stored if isinstance(stored, bytes) else msgspec.json.encode(stored)

    assert load(data).unreadable


@given(st.lists(scoped(), max_size=3), CANDIDATES, GATEWAYS, st.integers(0, 2**32 - 1))
def test_every_attempt_of_a_plan_is_eligible_and_tried_once(
    documents: list[Scoped], candidates: list[Any], gateway: frozenset[str], draw: int
) -> None:
    policy = compile_policies(documents, "chat-default")

    routed = route(policy, an_ask(), candidates, NOWHERE, gateway, draw)

    if isinstance(routed, Plan):
        eligible = [
            candidate
            for candidate, verdict in zip(candidates, routed.verdicts, strict=True)
            if verdict.eligible
        ]
        assert len(routed.attempts) == min(len(eligible), policy.max_attempts)
        for attempt in routed.attempts:
            eligible.remove(attempt)
