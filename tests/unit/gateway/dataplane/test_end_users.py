"""Whom a request is for, by whatever field the app says it in."""

from typing import Any

import msgspec
import pytest

from gateway.dataplane.end_users import by_tenant, name_of
from gateway.dataplane.envelope import Fields, fields_of
from gateway.pseudonyms import Pseudonyms, new_key
from gateway.stores.sql.rows import Configuration, PseudonymKey, Tenant


def fields(**body: Any) -> Fields:
    found = fields_of(msgspec.json.encode(body))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"user": "ada"}, "ada"),
        ({"safety_identifier": "ada", "user": "old"}, "ada"),
        ({"metadata": {"user_id": "ada", "other": "x"}}, "ada"),
        ({"user": "ada", "metadata": {"user_id": "other"}}, "ada"),
        ({"user": "", "metadata": {"user_id": "ada"}}, "ada"),
        ({"user": "J\u00fcrgen"}, "Jürgen"),
    ],
)
def test_an_end_user_is_named_by_the_first_field_that_names_one(
    body: dict[str, Any], name: str
) -> None:
    assert name_of(fields(**body)) == name


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": None},
        {"user": 7},
        {"user": ["ada"]},
        {"user": "a" * 20_000},
        {"metadata": "ada"},
        {"metadata": {"user_id": 7}},
        {"metadata": {"user_id": ""}},
        {"metadata": None},
    ],
)
def test_what_is_no_text_names_nobody(body: dict[str, Any]) -> None:
    assert name_of(fields(**body)) is None


ACME = Tenant(id="acme", name="Acme", currency="USD", timezone="UTC", end_users="pseudonym")
SILENT = Tenant(id="silent", name="Silent", currency="USD", timezone="UTC")
WRITTEN = new_key()
KEYS = tuple(
    PseudonymKey(id=f"key_{each.id}", tenant_id=each.id, key_version=2, credential_sealed=b"sealed")
    for each in (ACME, SILENT)
)
CONFIG = Configuration(revision=1, tenants=(ACME, SILENT), pseudonym_keys=KEYS)


def test_only_a_tenant_that_says_so_keeps_them() -> None:
    found = by_tenant(CONFIG, lambda _: WRITTEN)

    assert found.keys() == {"acme"}
    assert found["acme"].of(fields(user="ada")) == Pseudonyms.opened(2, WRITTEN).of("ada")
    assert found["acme"].of(fields(model="m")) is None


@pytest.mark.parametrize("opened", [None, "not a key"])
def test_without_its_key_nothing_is_kept(opened: str | None) -> None:
    assert by_tenant(CONFIG, lambda _: opened) == {}
