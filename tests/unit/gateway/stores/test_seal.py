"""Sealed credentials: opened only for their backend, with their key, unchanged."""

import pytest

from gateway.stores.sql.seal import Sealer, SealError

OLD, NEW = b"o" * 32, b"n" * 32


def test_what_was_sealed_opens_again() -> None:
    sealer = Sealer(NEW)

    assert sealer.unseal("backend_1", sealer.seal("backend_1", "sk-Ünïcode")) == "sk-Ünïcode"


def test_a_credential_moved_to_another_backend_does_not_open() -> None:
    sealer = Sealer(NEW)

    with pytest.raises(SealError, match="changed"):
        sealer.unseal("backend_2", sealer.seal("backend_1", "sk-1"))


@pytest.mark.parametrize("position", [5, 20, -1])
def test_one_changed_bit_is_noticed(position: int) -> None:
    sealer = Sealer(NEW)
    sealed = bytearray(sealer.seal("backend_1", "sk-1"))
    sealed[position] ^= 1

    with pytest.raises(SealError):
        sealer.unseal("backend_1", bytes(sealed))


def test_an_earlier_key_still_opens_what_it_sealed() -> None:
    sealed = Sealer(OLD).seal("backend_1", "sk-1")

    assert Sealer(NEW, previous=[OLD]).unseal("backend_1", sealed) == "sk-1"
    with pytest.raises(SealError, match="another METERHOUSE_SECRET_KEY"):
        Sealer(NEW).unseal("backend_1", sealed)


def test_sealing_twice_gives_different_bytes_and_never_the_credential() -> None:
    sealer = Sealer(NEW)
    first, second = sealer.seal("backend_1", "sk-1"), sealer.seal("backend_1", "sk-1")

    assert first != second
    assert b"sk-1" not in first


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(b"short")
