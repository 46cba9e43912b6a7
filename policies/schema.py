"""The JSON Schema of a policy document, made from the same table that reads one.

What no JSON Schema can say is said by `parse` alone: that the least of two numbers is not above the
other (`budget.least_output`, `match.input_tokens`), that hours do not end when they begin, that a
percentile needs an objective, an experiment `match.models` and a hedge a second attempt, that a
shadow goes to another model and stands in no key's document, and that 1.0 is not a whole number.
"""

from typing import Any, Final

from policies.document import BESIDE_TAGS, SCOPES
from policies.fields import FIELDS, SECTIONS
from policies.readers import Schema

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NOT_BESIDE_TAGS: Final = sorted(
    {field.path.partition(".")[0] for field in FIELDS} - set(BESIDE_TAGS)
)
_SCOPE_ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 256}


def document_schema(scope_id: Schema | None = None) -> Schema:
    """Of a document as `parse` takes it. `scope_id`: of the ids in its scope; else any text."""
    empty: Schema = {"additionalProperties": {"type": "null"}}
    without = {name: empty if name in SECTIONS else {"type": "null"} for name in _NOT_BESIDE_TAGS}
    return {
        "$schema": DIALECT,
        "title": "Meterhouse policy",
        "type": "object",
        "properties": _properties(scope_id or _SCOPE_ID),
        "required": ["name", "scope"],
        "additionalProperties": False,
        "if": {
            "properties": {
                "match": {"properties": {"tags": {"type": "object"}}, "required": ["tags"]}
            },
            "required": ["match"],
        },
        "then": {"properties": without},
    }


def _properties(scope_id: Schema) -> dict[str, Any]:
    found: dict[str, Any] = {
        "scope": {
            "type": "object",
            "properties": dict.fromkeys(SCOPES, scope_id),
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
    }
    for field in FIELDS:
        section, _, leaf = field.path.rpartition(".")
        schema = (
            field.read.schema if leaf == "name" and not section else _or_null(field.read.schema)
        )
        if not section:
            found[leaf] = schema
            continue
        within = found.setdefault(
            section, {"type": "object", "properties": {}, "additionalProperties": False}
        )
        within["properties"][leaf] = schema
    return found


def _or_null(schema: Schema) -> Schema:
    """A field that is null is one that was left out."""
    return schema if schema == {"type": "null"} else {"anyOf": [schema, {"type": "null"}]}
