"""Provider credentials at rest: AES-256-GCM, bound to the backend they belong to.

The backend's id is associated data, so a sealed credential copied to another row does not open.
A sealed value is: format byte, 4 bytes naming the key, 12 bytes nonce, ciphertext with tag.
"""

import hashlib
import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_FORMAT: Final = b"\x01"
_CONTEXT: Final = b"meterhouse backend credential v1"
_KEY_NAME: Final = slice(1, 5)
_NONCE: Final = slice(5, 17)
_KEY_BYTES: Final = 32


class SealError(ValueError):
    """A sealed credential does not open: another key, another backend, or changed bytes."""


class Sealer:
    """Seals with `secret_key`; opens what any of it and `previous` sealed."""

    def __init__(self, secret_key: bytes, previous: Sequence[bytes] = ()) -> None:
        """ValueError unless every key has 32 bytes."""
        ciphers = [_cipher(key) for key in (secret_key, *previous)]
        self._name, self._cipher = ciphers[0]
        self._ciphers = dict(reversed(ciphers))

    def seal(self, backend_id: str, credential: str) -> bytes:
        nonce = os.urandom(12)
        sealed = self._cipher.encrypt(nonce, credential.encode(), backend_id.encode())
        return _FORMAT + self._name + nonce + sealed

    def unseal(self, backend_id: str, sealed: bytes) -> str:
        """The credential. SealError says why it does not open, never what is in it."""
        cipher = self._ciphers.get(sealed[_KEY_NAME])
        if sealed[:1] != _FORMAT or cipher is None:
            raise SealError(
                f"the credential of {backend_id} was sealed with another METERHOUSE_SECRET_KEY"
            )
        try:
            opened = cipher.decrypt(sealed[_NONCE], sealed[_NONCE.stop :], backend_id.encode())
        except InvalidTag as fault:
            raise SealError(f"the sealed credential of {backend_id} was changed") from fault
        return opened.decode()


def _cipher(secret_key: bytes) -> tuple[bytes, AESGCM]:
    if len(secret_key) != _KEY_BYTES:
        raise ValueError(f"a sealing key has {_KEY_BYTES} bytes, not {len(secret_key)}")
    key = HKDF(hashes.SHA256(), length=_KEY_BYTES, salt=None, info=_CONTEXT).derive(secret_key)
    return hashlib.sha256(b"name:" + key).digest()[:4], AESGCM(key)
