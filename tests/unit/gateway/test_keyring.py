"""Application keys: made, recognised, hashed."""

import string

from hypothesis import given
from hypothesis import strategies as st

from gateway import keyring


def test_a_fresh_key_has_the_published_form() -> None:
    made = keyring.make()

    prefix, public_id, secret, checksum = made.text.split("_")

    assert (prefix, len(public_id), len(secret), len(checksum)) == ("mh", 16, 43, 6)
    assert set(made.text) <= set(string.ascii_letters + string.digits + "_")


def test_a_fresh_key_is_recognised() -> None:
    made = keyring.make()

    presented = keyring.parse(made.text.encode())

    assert presented == (made.public_id, made.secret)


def test_two_keys_share_neither_id_nor_secret() -> None:
    made = [keyring.make() for _ in range(200)]

    assert len({each.public_id for each in made}) == 200
    assert len({each.secret for each in made}) == 200


@given(position=st.integers(0, 69), character=st.sampled_from(string.ascii_letters + string.digits))
def test_one_wrong_character_is_turned_away_before_any_look_up(
    position: int, character: str
) -> None:
    text = keyring.make().text
    wrong = text[:position] + character + text[position + 1 :]

    assert (keyring.parse(wrong.encode()) is None) == (wrong != text)


@given(st.binary(max_size=100))
def test_bytes_that_are_no_key_are_turned_away(raw: bytes) -> None:
    assert keyring.parse(raw) is None


def test_what_the_database_keeps_depends_on_the_pepper_and_is_no_credential() -> None:
    made = keyring.make()

    kept = keyring.digest(b"pepper one", made.secret)

    assert keyring.matches(b"pepper one", made.secret, kept)
    assert not keyring.matches(b"pepper two", made.secret, kept)
    assert not keyring.matches(b"pepper one", kept, kept)


def test_neither_keys_nor_peppers_show_their_secrets() -> None:
    made = keyring.make()
    peppers = keyring.Peppers(current=1, by_version={1: b"hush hush"})

    assert made.secret.decode() not in repr(made)
    assert "hush" not in repr(peppers)
