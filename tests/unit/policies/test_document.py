import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from policies.document import DocumentError, Problem, canonical, load, parse
from tests.policy_builders import a_document

EXAMPLES = Path(__file__).parents[3] / "policies" / "examples"
FULL = yaml.safe_load((EXAMPLES / "eu-support-chat.yaml").read_text())
del FULL["kind"], FULL["activate"]


def problems_of(document: Any) -> dict[str, Problem]:
    with pytest.raises(DocumentError) as refused:
        parse(document)
    return {problem.path: problem for problem in refused.value.problems}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_document(path: Path) -> None:
    written = yaml.safe_load(path.read_text())
    assert written.pop("kind") == "policy"
    assert written.pop("activate") is True

    document = parse(written)

    assert document.unreadable == ()
    assert parse(canonical(document)) == document


def test_every_field_of_the_design_is_read() -> None:
    document = parse(FULL)

    assert (document.name, document.scope_kind, document.scope_id) == (
        "eu-support-chat",
        "team",
        "support",
    )
    assert document.models == ("chat-default",)
    assert document.residency == ("EU",)
    assert document.capabilities == ("tools",)
    assert (document.ttft_p95_ms, document.tpot_p95_ms) == (800, 60)
    assert document.on_breach == "prefer_faster"
    assert document.max_per_request == "0.05"
    assert document.max_input_per_million is None
    assert document.max_output_per_million == "15.00"
    assert document.prefer == "cheapest"
    assert (document.hold, document.clamp, document.on_exhausted) == ("full", True, "refuse")
    assert (document.least_output, document.default_output) == (64, 1024)
    assert document.max_attempts == 3


def test_a_budget_may_be_held_in_slices_and_a_cheaper_model_named() -> None:
    budget = {"hold": "sliced", "slice": 128, "on_exhausted": {"degrade_to": "chat-small"}}

    document = a_document(budget=budget)

    assert (document.hold, document.slice) == ("sliced", 128)
    assert document.on_exhausted == {"degrade_to": "chat-small"}
    assert load(canonical(document)) == document


def test_json_bytes_and_a_mapping_are_the_same_document() -> None:
    assert parse(json.dumps(FULL).encode()) == parse(FULL)


def test_canonical_is_the_same_however_it_was_written() -> None:
    backwards = {
        name: dict(reversed(value.items())) if isinstance(value, dict) else value
        for name, value in reversed(FULL.items())
    }

    assert canonical(parse(backwards)) == canonical(parse(FULL))
    assert json.loads(canonical(parse(FULL)))["budget"]["clamp"] == "on"
    assert b"null" not in canonical(parse(FULL))


def test_a_short_document_stays_short() -> None:
    assert canonical(a_document()) == b'{"name":"a-policy","scope":{"team":"team_1"}}'


@pytest.mark.parametrize(
    ("written", "read"), [(True, True), ("on", True), (False, False), ("off", False)]
)
def test_a_switch_may_be_yamls_boolean(written: Any, read: bool) -> None:
    assert a_document(budget={"clamp": written}).clamp is read


def test_whole_numbers_are_exact_amounts() -> None:
    assert a_document(cost={"max_output_per_million": 15}).max_output_per_million == "15"


def test_ordered_placements_are_a_preference() -> None:
    assert a_document(prefer=["on_prem", "edge"]).prefer == ("on_prem", "edge")


def test_all_problems_are_reported_at_once_with_path_and_remedy() -> None:
    found = problems_of(
        {
            "scope": {"team": "t", "key": "k"},
            "require": {"residency": ["UK"], "placement": ["cloud"]},
            "cost": {"max_per_request": 0.05},
            "retries": {"max_attempts": 0},
            "colour": "blue",
        }
    )

    assert set(found) == {
        "name",
        "scope",
        "require.residency",
        "require.placement",
        "cost.max_per_request",
        "retries.max_attempts",
        "colour",
    }
    assert "'GB'" in found["require.residency"].message
    assert "require.placements?" in found["require.placement"].remedy
    assert '"0.05"' in found["cost.max_per_request"].remedy
    assert all(problem.remedy for problem in found.values())


def test_the_error_reads_as_text_and_gives_its_first_problem() -> None:
    with pytest.raises(DocumentError, match="colour is not a field; leave it out") as refused:
        a_document(colour="blue")
    assert refused.value.path == "colour"
    assert refused.value.message == "is not a field"
    assert refused.value.remedy == "leave it out"


@pytest.mark.parametrize(
    "sections",
    [
        {"name": ""},
        {"name": "a, b"},
        {"name": None},
        {"scope": {}},
        {"scope": {"user": "u"}},
        {"scope": {"team": ""}},
        {"scope": None},
        {"match": None},
        {"match": ["chat"]},
        {"match": {"models": "chat"}},
        {"match": {"models": []}},
        {"match": {"models": {"a": 1}}},
        {"match": {"models": ["a", "a"]}},
        {"match": {"models": ["m"] * 257}},
        {"match": {"models": [1]}},
        {"match": {"tags": {}}},
        {"match": {"hours": {"from": "8"}}},
        {"match": {"stream": "yes"}},
        {"match": {"input_tokens": {"from": 3}}},
        {"require": {"residency": []}},
        {"require": {"capabilities": ["Tool Use"]}},
        {"require": {"placements": ["moon"]}},
        {"require": {"data_classes": ["Health"]}},
        {"require": {"max_context": 0}},
        {"slo": {"percentile": 99}},
        {"slo": {"window_s": 60}},
        {"slo": {"ttft_p95_ms": 1, "percentile": 100}},
        {"slo": {"ttft_p95_ms": 1, "window_s": 10}},
        {"slo": {"on_no_data": "panic"}},
        {"slo": {"ttft_p95_ms": 0}},
        {"slo": {"ttft_p95_ms": True}},
        {"slo": {"ttft_p95_ms": 1.5}},
        {"slo": {"on_breach": "panic"}},
        {"cost": {"max_per_request": "1e3"}},
        {"cost": {"max_per_request": "-1"}},
        {"cost": {"max_per_request": True}},
        {"cost": {"max_per_request": ["1"]}},
        {"cost": {"max_output_per_million": "0.0000001"}},
        {"prefer": "best"},
        {"prefer": ["moon"]},
        {"prefer": 3},
        {"experiment": {"name": "trial", "split": {"a": 1, "b": 1}}},
        {"weights": {}},
        {"weights": {"eu": -1}},
        {"weights": {"eu": True}},
        {"weights": {"": 1}},
        {"weights": ["eu"]},
        {"budget": {"clamp": "yes"}},
        {"budget": {"hold": "none"}},
        {"budget": {"hold": "sliced", "slice": 15}},
        {"budget": {"on_exhausted": "degrade"}},
        {"budget": {"on_exhausted": {"degrade_to": ""}}},
        {"budget": {"on_exhausted": {"degrade_to": None}}},
        {"budget": {"on_exhausted": {"degrade_to": "a", "or": "b"}}},
        {"budget": {"least_output": 65, "default_output": 64}},
        {"retries": {"max_attempts": 11}},
        {"priority": 0},
        {"priority": 10},
        {"priority": "high"},
    ],
)
def test_a_value_that_cannot_stand_is_refused(sections: dict[str, Any]) -> None:
    found = problems_of({"name": "n", "scope": {"key": "k"}} | sections)

    assert len(found) == 1
    assert all(path.split(".")[0] == next(iter(sections)) for path in found)


def test_what_the_client_claims_decides_nothing_but_what_is_asked_in_addition() -> None:
    tagged = {"name": "n", "scope": {"key": "k"}, "match": {"tags": {"env": "prod"}}}
    narrowing = {"require": {"residency": ["EU"]}, "cost": {"max_per_request": 1}}

    found = problems_of(
        tagged | narrowing | {"budget": {"clamp": "off"}, "retries": {"max_attempts": 9}}
    )

    assert set(found) == {"budget.clamp", "retries.max_attempts"}
    assert all("tags" in problem.message for problem in found.values())
    assert parse(tagged | narrowing | {"prefer": "fastest"}).tags == {"env": ("prod",)}


def test_norway_lost_in_yaml_is_explained() -> None:
    written = yaml.safe_load("{name: n, scope: {key: k}, require: {residency: [DE, NO]}}")

    remedy = problems_of(written)["require.residency"].remedy

    assert 'write Norway as "NO"' in remedy


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"text"', b"\xff\xfe"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    assert set(problems_of(data)) == {""}


def test_a_null_field_is_one_that_was_left_out() -> None:
    assert a_document(prefer=None, slo={"ttft_p95_ms": None}) == a_document()


def test_load_reads_what_parse_accepted() -> None:
    assert load(canonical(parse(FULL))) == parse(FULL)


def test_load_marks_what_it_cannot_read_and_keeps_the_rest() -> None:
    stored = msgspec.json.encode(FULL | {"require": {"residency": ["EU"], "moods": ["blue"]}})

    document = load(stored)

    assert document.residency == ("EU",)
    assert document.unreadable == ("require.moods",)


def test_load_never_fails() -> None:
    assert load(b"garbage").unreadable == ("",)
    assert load(b"[]").unreadable == ("",)
    assert load(b'{"require": 3}').unreadable == ("require",)


def test_a_hedge_needs_a_second_attempt() -> None:
    found = problems_of(
        {
            "name": "n",
            "scope": {"key": "k"},
            "retries": {"max_attempts": 1, "hedge_after_ms": 200},
        }
    )

    assert list(found) == ["retries.hedge_after_ms"]


def test_retries_read_when_to_hedge_and_how_much() -> None:
    document = a_document(retries={"hedge_after_ms": 200, "hedge_percent": 2})
    assert (document.hedge_after_ms, document.hedge_percent) == (200, 2)
    assert a_document(retries={"hedge_after_ms": None}).hedge_after_ms is None


def test_a_shadow_stands_where_somebody_else_can_pay_and_goes_to_another_model() -> None:
    shadow = {"model": "chat", "percent": 5, "payer": {"key": "key_lab"}}
    trial = {"name": "t", "match": {"models": ["chat"]}, "experiment": {"name": "e"}}
    trial["experiment"] = {"name": "e", "shadow": shadow}
    with pytest.raises(DocumentError) as refused:
        parse(trial | {"scope": {"key": "key_1"}})

    paths = [problem.path for problem in refused.value.problems]
    assert paths == ["experiment.shadow", "experiment.shadow.model"]
    assert "never pays" in refused.value.message
    split = {"chat": 1, "other": 1}
    both = parse(
        trial | {"scope": {"team": "t"}, "experiment": trial["experiment"] | {"split": split}}
    )
    assert both.trial is not None
    assert both.trial.shadow is not None
    assert (both.trial.shadow.scope_kind, both.trial.shadow.scope_id) == ("team", "t")
