"""The published schema and the parser take and refuse the same documents."""

from typing import Any

import jsonschema_rs
from hypothesis import given
from hypothesis import strategies as st

from policies.document import DocumentError, parse
from policies.fields import FIELDS
from policies.schema import document_schema
from tests.policy_documents import ASKING, DOCUMENTS, OTHERS, TAGS

VALIDATOR = jsonschema_rs.validator_for(document_schema())
PATHS = [field.path for field in FIELDS]

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70) | st.just(10**16),
    st.sampled_from(
        ["", "on", "refuse", "EU", "EU@2020-02-01", "UK", "cloud", "tools", "Tools", "a" * 300]
    ),
    st.sampled_from(
        [
            "allow",
            "shed",
            "0.05",
            "-1",
            "-0",
            "1e3",
            "0.0000001",
            "08:00",
            "a,b",
            "cheapest",
            "sliced",
            "mon",
        ]
    ),
    st.lists(st.sampled_from(["EU", "DE", "cloud", "tools", "a b", "", 3]), max_size=3),
    st.dictionaries(
        st.sampled_from(["degrade_to", "from", "to", "days", "at_least", "at_most", "env", "E"]),
        st.sampled_from(["a", "08:00", "24:00", 5, -5, True, ["mon"], ["a", "b"], [], None]),
        max_size=2,
    ),
)
# Relations between two values, which a schema has no words for.
BEYOND_A_SCHEMA = (
    "ends before it begins",
    "begins when it ends",
    "above budget.default_output",
    "speaks of no objective",
    "needs match.models",
    "asks for a second attempt",
    "cannot stand in a key's document",
    "serves these requests anyway",
)


def agree(written: dict[str, Any]) -> None:
    try:
        parse(written)
        problems: list[str] = []
    except DocumentError as refused:
        problems = [problem.message for problem in refused.problems]
    by_word = [one for one in problems if not any(text in one for text in BEYOND_A_SCHEMA)]

    assert VALIDATOR.is_valid(written) is not bool(by_word), problems


@given(DOCUMENTS)
def test_the_schema_takes_what_the_parser_takes(written: dict[str, Any]) -> None:
    parse(written)

    assert VALIDATOR.is_valid(written), str(next(VALIDATOR.iter_errors(written)))


@given(DOCUMENTS, st.sampled_from([*PATHS, "scope", "scope.key", "colour", "match.colour"]), ODD)
def test_an_odd_value_anywhere_is_odd_to_both(written: dict[str, Any], path: str, odd: Any) -> None:
    section, _, leaf = path.rpartition(".")
    changed = {**written, section: {**written.get(section, {}), leaf: odd}} if section else {
        **written, leaf: odd
    }  # fmt: skip

    agree(changed)


@given(ASKING, TAGS, st.fixed_dictionaries({}, optional=OTHERS))
def test_what_tags_may_not_decide_is_refused_by_both(
    written: dict[str, Any], tags: dict[str, Any], others: dict[str, Any]
) -> None:
    agree(written | others | {"match": {"tags": tags}})
