"""What there was when the ledger's chains began, sealed as one block of a chain of its own, so that
nothing is put beside the chains later on.

The block's record is a JSON array: FORMAT, CHAIN, the columns of `journal_start`, the digest of the
event ids that are in no block (`Outside`), and the ids of what had been issued. The block's own
entries are those invoices. Whoever installs a ledger anew has a block of no rows.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, text

from policies.seals import ORIGIN, seal

CHAIN: Final = "start"
FORMAT: Final = 1
VOIDED: Final = ":voided"
_BYTES: Final = 256  # a sum of so many cannot be met by choosing other ids
_AT_ONCE: Final = 5_000
_LEVEL: Final = 1
_PACK: Final = msgspec.json.Encoder().encode
_UNPACK: Final = msgspec.json.Decoder(list[str]).decode


class Outside:
    """The ids that are in no block, as a sum that any order of them comes to: those of the table
    are added, those of blocks are taken away. Memory does not grow with them.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, ids: Iterable[str]) -> None:
        self._sum += _summed(ids)

    def take(self, ids: Iterable[str]) -> None:
        self._sum -= _summed(ids)

    def digest(self) -> str:
        """SHA-256 of the sum modulo 2^2048, where an id counts as its SHAKE-256, big-endian."""
        whole = self._sum % 2 ** (8 * _BYTES)
        return hashlib.sha256(whole.to_bytes(_BYTES, "big")).hexdigest()


def record(start: Sequence[Any], digest: str, issued: Sequence[str]) -> bytes:
    """`start`: usage rows, postings and the time in us, as `journal_start` has them."""
    return _PACK((FORMAT, CHAIN, *start, digest, issued))


def seal_start(connection: Connection) -> None:
    """What is in no block now belongs to the start. For the migration: in SQL that later columns
    do not change.
    """
    start = connection.execute(text("SELECT usage_rows, postings, at_us FROM journal_start")).one()
    outside = Outside()
    if start.usage_rows:
        for ids in _parts(connection, "SELECT event_id FROM usage_rows"):
            outside.add(ids)
        for ids in _sealed(connection, "usage/%"):
            outside.take(ids)
    sealed = {id_.removesuffix(VOIDED) for ids in _sealed(connection, "invoices") for id_ in ids}
    there = connection.scalars(text("SELECT id FROM invoices WHERE status <> 'draft'"))
    issued = sorted(set(there) - sealed)
    told = record(tuple(start), outside.digest(), issued)
    block = seal(CHAIN, 1, ORIGIN, [told], start.at_us)
    connection.execute(
        text(
            "INSERT INTO journal_blocks (chain, number, previous, content, count, sealed_at_us,"
            " hash, entries) VALUES (:chain, :number, :previous, :content, :count,"
            " :sealed_at_us, :hash, :entries)"
        ),
        {**msgspec.structs.asdict(block), "entries": zlib.compress(_PACK(issued), _LEVEL)},
    )
    connection.execute(
        text("INSERT INTO journal_chains (chain, number, hash) VALUES (:chain, 1, :hash)"),
        {"chain": CHAIN, "hash": block.hash},
    )


def _sealed(connection: Connection, chains: str) -> Iterator[list[str]]:
    query = text("SELECT entries FROM journal_blocks WHERE chain LIKE :chains")
    found = connection.execute(query, {"chains": chains}, execution_options={"yield_per": 20})
    for (entries,) in found:
        yield _UNPACK(zlib.decompress(entries))


def _parts(connection: Connection, query: str) -> Iterator[Sequence[str]]:
    found = connection.execute(text(query), execution_options={"yield_per": _AT_ONCE})
    yield from found.scalars().partitions()


def _summed(ids: Iterable[str]) -> int:
    return sum(int.from_bytes(hashlib.shake_256(id_.encode()).digest(_BYTES), "big") for id_ in ids)
