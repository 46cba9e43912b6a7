import pytest

from policies.document import PolicyDocument
from policies.fields import FIELDS, SECTIONS
from policies.readers import FieldError, amount, integer


def test_every_field_has_its_place_in_the_document() -> None:
    assert {field.attribute for field in FIELDS} | {"scope_kind", "scope_id", "unreadable"} == set(
        PolicyDocument.__struct_fields__
    )


def test_sections_are_the_first_words_of_the_paths() -> None:
    assert {"match", "require", "slo", "cost", "budget", "idempotency", "retries"} == SECTIONS


def test_a_float_is_shown_as_it_should_have_been_written() -> None:
    with pytest.raises(FieldError) as refused:
        amount(12)(1e-7)
    assert refused.value.remedy == 'write it in quotes: "0.0000001"'


def test_an_amount_is_kept_as_it_was_written() -> None:
    assert amount(6)("15.00") == "15.00"
    assert amount(6)(0) == "0"


def test_bounds_are_part_of_the_range() -> None:
    read = integer(1, 3)

    assert [read(1), read(3)] == [1, 3]
    for outside in (0, 4, "2", None):
        with pytest.raises(FieldError, match="from 1 to 3"):
            read(outside)
