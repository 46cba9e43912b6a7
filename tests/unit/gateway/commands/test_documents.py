import json
from pathlib import Path

import pytest

from gateway.commands import documents
from gateway.commands.documents import DocumentFault

TENANT = {"kind": "tenant", "name": "acmé 🐙", "currency": "EUR"}
PRICE = {"kind": "price", "book": "charge", "amount_per_million": "0.10"}


@pytest.mark.parametrize("indent", [None, 2])
def test_what_export_prints_as_json_reads_as_what_it_prints_as_yaml(
    tmp_path: Path, indent: int | None
) -> None:
    as_json, as_yaml = tmp_path / "a.json", tmp_path / "a.yaml"
    as_json.write_text(json.dumps([PRICE, TENANT], indent=indent))
    as_yaml.write_text(documents.write([PRICE, TENANT]), encoding="utf-8")

    read = [[each.fields for each in documents.read([path])] for path in (as_json, as_yaml)]

    assert read[0] == read[1]
    assert [each.kind for each in documents.read([as_json])] == ["tenant", "price"]


def test_one_object_of_json_is_a_document_and_its_decimals_stay_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"kind": "price", "amount_per_million": 0.10}')

    (document,) = documents.read([path])

    assert document.fields == {"amount_per_million": "0.10"}


def test_a_name_given_twice_is_refused_in_json_too(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"kind": "tenant", "name": "a", "name": "b"}]')

    with pytest.raises(DocumentFault, match="'name' twice"):
        documents.read([path])


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["tenant"]')

    with pytest.raises(DocumentFault, match="`kind` must be one of"):
        documents.read([path])
