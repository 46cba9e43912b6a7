"""End users by a keyed hash: the same for the same person, and nothing without the key."""

import hashlib
import hmac

import pytest

from gateway.pseudonyms import MOST_NAME_BYTES, Pseudonyms, new_key

KEY = b"k" * 32


def test_a_pseudonym_is_the_hmac_of_the_name_under_the_version_of_its_key() -> None:
    name = "Jürgen@example.com"

    digest = hmac.new(KEY, name.encode(), hashlib.sha256).hexdigest()
    assert Pseudonyms(3, KEY).of(name) == f"3:{digest}"


def test_names_are_told_apart_letter_for_letter_and_so_are_keys() -> None:
    some, other = Pseudonyms(1, KEY), Pseudonyms(1, b"o" * 32)

    assert len({some.of("ada"), some.of("Ada"), some.of("ada "), other.of("ada")}) == 4


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "\ud800", "x" * (MOST_NAME_BYTES + 1)])
def test_what_nobody_could_ask_for_later_is_no_name(name: str) -> None:
    assert Pseudonyms(1, KEY).of(name) is None


def test_a_key_is_opened_as_it_was_written_and_nothing_else_is_a_key() -> None:
    written = new_key()

    assert Pseudonyms.opened(1, written).of("ada") == Pseudonyms.opened(1, written).of("ada")
    assert Pseudonyms.opened(1, written).of("ada") != Pseudonyms.opened(1, new_key()).of("ada")
    for text in ("", "short", written[:-8]):
        with pytest.raises(ValueError, match=r"bytes|base64|Incorrect padding"):
            Pseudonyms.opened(1, text)
