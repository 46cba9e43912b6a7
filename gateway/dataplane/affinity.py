"""How a prompt begins, as a number of 16 bits: enough to send like prompts to one backend, where
their beginning is in its cache already, and too little to tell what it was.

The number is a keyed hash, apart for each tenant and model. No content is kept, and who reads
decisions cannot try prompts against them.
"""

from hashlib import blake2b
from typing import Final

from gateway.dataplane.envelope import CHAT, Fields

FIRST_BYTES: Final = 1_024  # a shorter prompt has no beginning worth finding again
_PURPOSE: Final = b"mh:affinity"


class Prefixes:
    """One a worker; all of one secret answer alike."""

    def __init__(self, secret_key: bytes) -> None:
        self._key = blake2b(secret_key, digest_size=32, person=_PURPOSE).digest()

    def of(self, fields: Fields, operation: str, tenant_id: str, model: str) -> int:
        """1 to 65,535; 0 where the prompt is too short for it."""
        prompt = fields.get("messages" if operation == CHAT else "prompt")
        if prompt is None:
            return 0
        begins = memoryview(prompt)[:FIRST_BYTES]
        if len(begins) < FIRST_BYTES:
            return 0
        found = blake2b(begins, digest_size=2, key=self._key)
        found.update(f"\0{tenant_id}\0{model}".encode())
        return int.from_bytes(found.digest()) or 1
