from typing import Any

from policies.fields import FIELDS
from policies.schema import DIALECT, document_schema


def places(schema: dict[str, Any]) -> set[str]:
    found = set()
    for name, each in schema["properties"].items():
        if each.get("type") == "object" and name != "scope":
            found |= {f"{name}.{leaf}" for leaf in each["properties"]}
        else:
            found.add(name)
    return found


def test_every_field_is_described_and_no_other() -> None:
    schema = document_schema()

    assert schema["$schema"] == DIALECT
    assert places(schema) == {field.path for field in FIELDS} | {"scope"}


def test_whoever_uses_ids_says_what_they_look_like() -> None:
    ids = {"type": "string", "pattern": "^team_"}

    assert document_schema(ids)["properties"]["scope"]["properties"]["team"] == ids
