"""The chain of decisions: records in blocks, each block bound to the one before it by a hash.

Whoever holds a block's hash, printed or kept elsewhere, can tell whether any record up to it was
changed, taken out, put in or moved. Nothing is secret here: an auditor computes it with a copy of
the records and SHA-256.

    record hash  = SHA-256(record)
    content hash = SHA-256(record hash 1 || record hash 2 || ...)
    block hash   = SHA-256("meterhouse decisions 1" || chain || 0 || number || sealed_at_us || count
                           || content hash || hash of the block before)

Numbers are 8 bytes, big-endian, in two's complement (whoever tampers may write any); the first
block follows 32 zero bytes.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

ORIGIN: Final = bytes(32)  # what the first block follows
_PURPOSE: Final = b"meterhouse decisions 1"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed block of one chain. Hashes are 32 bytes."""

    chain: str
    number: int  # from 1
    previous: bytes
    content: bytes
    count: int
    sealed_at_us: int
    hash: bytes


class Break(msgspec.Struct, frozen=True):
    """The first place at which a chain does not hold, and in what way."""

    chain: str
    number: int
    fault: str


def content_of(records: Iterable[bytes]) -> tuple[bytes, int]:
    """The content hash of records in their order, and how many they are."""
    whole, count = hashlib.sha256(), 0
    for record in records:
        whole.update(hashlib.sha256(record).digest())
        count += 1
    return whole.digest(), count


def seal(
    chain: str, number: int, previous: bytes, records: Iterable[bytes], sealed_at_us: int
) -> Block:
    """The next block: `number` and `previous` are those of the block before, plus one."""
    content, count = content_of(records)
    return Block(
        chain=chain,
        number=number,
        previous=previous,
        content=content,
        count=count,
        sealed_at_us=sealed_at_us,
        hash=_hash(chain, number, previous, content, count, sealed_at_us),
    )


class Chain:
    """Checks the blocks of one chain in their order. `fault` is set by the first that is wrong."""

    def __init__(self, chain: str) -> None:
        self.chain = chain
        self.number = 0
        self.head = ORIGIN
        self.kept = False  # whether a block with its records was there
        self.fault: Break | None = None

    def follow(self, block: Block, records: Iterable[bytes] | None) -> bool:
        """Whether the block is the next one and says what it should. `records` None: they were
        removed when their time was over, so that their hash alone is checked. The oldest go first.
        """
        if self.fault is None and (fault := self._wrong(block, records)):
            self.fault = Break(self.chain, block.number, fault)
        self.kept = self.kept or records is not None
        self.number, self.head = block.number, block.hash
        return self.fault is None

    def _wrong(self, block: Block, records: Iterable[bytes] | None) -> str:
        if block.number != self.number + 1:
            return f"block {self.number + 1} is missing"
        if block.previous != self.head:
            return "it does not follow the block before it"
        if records is None and self.kept:
            return "its records are missing, and older ones are there"
        if records is not None:
            content, count = content_of(records)
            if count != block.count:
                return f"{count} records where {block.count} were sealed"
            if content != block.content:
                return "its records are not those that were sealed"
        told = (block.content, block.count, block.sealed_at_us)
        if block.hash != _hash(self.chain, block.number, self.head, *told):
            return "its hash is not that of what it says"
        return ""


def _hash(
    chain: str, number: int, previous: bytes, content: bytes, count: int, sealed_at_us: int
) -> bytes:
    told = (number, sealed_at_us, count)
    numbers = b"".join(each.to_bytes(8, "big", signed=True) for each in told)
    return hashlib.sha256(_PURPOSE + chain.encode() + b"\0" + numbers + content + previous).digest()
