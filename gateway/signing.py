"""Signs what is handed out as evidence, so that its holder can show that it came from here.

Ed25519, with a key derived from METERHOUSE_SECRET_KEY: whoever has the public key, and that is no
secret, can check a statement without asking us. Another secret key makes another public key.
"""

import base64
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_CONTEXT: Final = b"meterhouse evidence signature v1"


class Signed(msgspec.Struct, frozen=True):
    """The signature is over the bytes of `statement`, in UTF-8; signature and key are base64."""

    statement: str
    signature: str
    public_key: str


class Signer:
    """Made once, from the secret key's 32 bytes."""

    def __init__(self, secret_key: bytes) -> None:
        seed = HKDF(hashes.SHA256(), length=32, salt=None, info=_CONTEXT).derive(secret_key)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = _text(self._key.public_key().public_bytes_raw())

    def sign(self, statement: str) -> Signed:
        signature = self._key.sign(statement.encode())
        return Signed(statement, _text(signature), self.public_key)

    def __repr__(self) -> str:
        return "Signer(***)"


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
