"""Decisions as the database keeps them: sealed blocks of records, one chain for each shard.

A block is written in the transaction that books the usage it goes with, so that a request's block
is found by the moment at which its usage was recorded. Reading many is reading few, large rows.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, Row, Select, and_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway import ids
from gateway.stores.sql.bulk import insert_new
from gateway.stores.sql.decision_tables import (
    decision_blocks,
    decision_chains,
    decision_standings,
)
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.tables import usage_rows
from policies.facts import ENCODER, RECORDS, STANDINGS, Record, Standing, digest_of
from policies.seals import ORIGIN, Block, Break, Chain, seal

_LEVEL: Final = 1  # records of one minute are much alike: the fastest level makes a third of them
_PACK: Final = msgspec.msgpack.Encoder().encode
_UNPACK: Final = msgspec.msgpack.Decoder(list[bytes]).decode
_REMADE: Final = "it is not the block whose hash somebody kept"
_TOUCHED: Final = "what its decisions were made by is not what they name"
_AT_ONCE: Final = 20  # blocks
_SOON_US: Final = 2_000_000  # between the time in a request id and that of its decision
_MOST_BLOCKS: Final = 500  # looked through for one request of which no usage was recorded

Place = tuple[int, str, int, int]  # sealed at, chain, block number, place in it


class Sealed(msgspec.Struct, frozen=True):
    """One record where it stands."""

    place: Place
    record: Record


class Anchor(msgspec.Struct, frozen=True):
    """The hash of a block, as somebody kept it elsewhere."""

    chain: str
    number: int
    hash: bytes


class Verified(msgspec.Struct, frozen=True):
    """What a look at every chain found. `fault` is the first broken link."""

    chains: tuple[Block, ...]  # the last block of each
    blocks: int
    records: int  # that were sealed
    retired: int  # of them, how many are kept as hashes only: their time is over
    fault: Break | None


def add(
    connection: Connection,
    chain: str,
    records: Iterable[Record],
    standings: Mapping[bytes, bytes],
    sealed_at_us: int,
) -> None:
    """Seals the records into the next block of the chain, in this transaction. Only one at a time:
    whoever comes second waits until the first has committed.
    """
    rows = [(digest.hex(), packed) for digest, packed in sorted(standings.items())]
    insert_new(connection, decision_standings, rows)
    packed, decided = [], []
    for record in records:  # one after another, as they are made: together they are large
        packed.append(ENCODER.encode(record))
        decided.append(record.facts.decided_at_us)
    if not packed:
        return
    number, head = _lock(connection, chain)
    block = seal(chain, number + 1, head, packed, sealed_at_us)
    connection.execute(
        decision_blocks.insert().values(
            **msgspec.structs.asdict(block),
            first_us=min(decided),
            last_us=max(decided),
            records=zlib.compress(_PACK(packed), _LEVEL),
        )
    )
    at = decision_chains.c.chain == chain
    head_row = {"number": block.number, "hash": block.hash}
    connection.execute(update(decision_chains).where(at).values(**head_row))


def add_alone(
    engine: Engine,
    chain: str,
    records: Sequence[Record],
    standings: Mapping[bytes, bytes],
    sealed_at_us: int,
) -> None:
    """As `add`, for records that no usage goes with: of refusals."""
    with transaction(engine) as connection:
        add(connection, chain, records, standings, sealed_at_us)


def _lock(connection: Connection, chain: str) -> tuple[int, bytes]:
    insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    first = insert(decision_chains).values(chain=chain, number=0, hash=ORIGIN)
    connection.execute(first.on_conflict_do_nothing())
    at = decision_chains.c.chain == chain
    row = connection.execute(select(decision_chains).where(at).with_for_update()).one()
    return row.number, row.hash


def standings(engine: Engine, digests: Sequence[bytes]) -> dict[bytes, Standing]:
    """Those that are known; one that is missing has not been handed in yet, and one that is not
    what its digest says was touched by somebody: neither tells anything of a decision.
    """
    wanted = [digest.hex() for digest in digests]
    with reading(engine) as connection:
        rows = connection.execute(
            select(decision_standings).where(decision_standings.c.digest.in_(wanted))
        )
        return {
            bytes.fromhex(row.digest): STANDINGS.decode(row.standing)
            for row in rows
            if _is_whole(row)
        }


def in_span(
    engine: Engine, start_us: int, end_us: int, after: Place | None = None
) -> Iterator[Sealed]:
    """Every record decided in [start, end), in the order of their sealing. A refusal that was
    handed in twice, because a process died in between, is there twice.
    """
    for block in _blocks_in(engine, start_us, end_us, after):
        for sealed in _records(block):
            if start_us <= sealed.record.facts.decided_at_us < end_us and (
                after is None or sealed.place > after
            ):
                yield sealed


def _blocks_in(
    engine: Engine, start_us: int, end_us: int, after: Place | None
) -> Iterator[Row[Any]]:
    of = decision_blocks.c
    where = and_(of.first_us < end_us, of.last_us >= start_us)
    if after is not None:
        where = and_(where, tuple_(of.sealed_at_us, of.chain, of.number) >= after[:3])
    order = (of.sealed_at_us, of.chain, of.number)
    yield from _paged(engine, select(decision_blocks).where(where).order_by(*order), order)


def _paged(engine: Engine, query: Select[Any], order: Sequence[Any]) -> Iterator[Row[Any]]:
    """Some blocks at a time, each time in a transaction of its own: nobody is kept waiting."""
    last: tuple[Any, ...] | None = None
    while True:
        page = query if last is None else query.where(tuple_(*order) > last)
        with reading(engine) as connection:
            rows = connection.execute(page.limit(_AT_ONCE)).all()
        yield from rows
        if len(rows) < _AT_ONCE:
            return
        last = tuple(getattr(rows[-1], column.name) for column in order)


def of_request(connection: Connection, request_id: str) -> Sealed | None:
    """The decision on one request; None for what is no request's id, too."""
    try:
        began_us = ids.made_at_us(request_id)
    except ValueError:
        return None
    of = decision_blocks.c
    recorded = select(usage_rows.c.recorded_at_us).where(usage_rows.c.request_id == request_id)
    rows = connection.execute(select(decision_blocks).where(of.sealed_at_us.in_(recorded)))
    if (found := _find(rows.all(), request_id)) is not None:
        return found
    # A refused request has no usage, and is sealed soon after it came: the first such blocks.
    where = and_(of.first_us <= began_us + _SOON_US, of.last_us >= began_us - _SOON_US)
    query = select(decision_blocks).where(where).order_by(of.sealed_at_us).limit(_MOST_BLOCKS)
    return _find(connection.execute(query), request_id)


def _find(blocks: Iterable[Row[Any]], request_id: str) -> Sealed | None:
    return next(
        (
            sealed
            for block in blocks
            for sealed in _records(block)
            if sealed.record.request_id == request_id
        ),
        None,
    )


def verify(engine: Engine, anchors: Sequence[Anchor] = ()) -> Verified:
    """Goes through every chain from its first block to the last that it is said to have. Against
    anchors, a chain that was remade as a whole is found too.
    """
    kept = {(anchor.chain, anchor.number): anchor.hash for anchor in anchors}
    with reading(engine) as connection:
        heads = connection.execute(select(decision_chains).order_by(decision_chains.c.chain)).all()
    touched = _touched(engine)
    lasts, blocks, records, retired, fault = [], 0, 0, 0, None
    for head in heads:
        chain, last = Chain(head.chain), None
        for row in _chain(engine, head.chain, head.number):
            last = _block(row)
            kept_there = None if row.records is None else _unpacked(row.records)
            chain.follow(last, kept_there)
            if touched and chain.fault is None and _refers(kept_there, touched):
                chain.fault = Break(last.chain, last.number, _TOUCHED)
            if kept.pop((last.chain, last.number), last.hash) != last.hash:
                chain.fault = chain.fault or Break(last.chain, last.number, _REMADE)
            blocks, records = blocks + 1, records + last.count
            retired += last.count if row.records is None else 0
        if chain.fault is None and (chain.number, chain.head) != (head.number, head.hash):
            chain.fault = Break(head.chain, chain.number + 1, "blocks at the end are missing")
        fault = fault or chain.fault
        if last is not None:
            lasts.append(last)
    for name, number in kept:  # no chain goes so far
        fault = fault or Break(name, number, "it is missing: somebody kept its hash")
    return Verified(tuple(lasts), blocks, records, retired, fault)


def _touched(engine: Engine) -> frozenset[str]:
    """The digests that do not belong to what stands under them."""
    of = decision_standings.c
    rows = _paged(engine, select(decision_standings).order_by(of.digest), (of.digest,))
    return frozenset(row.digest for row in rows if not _is_whole(row))


def _is_whole(row: Row[Any]) -> bool:
    return bool(digest_of(row.standing).hex() == row.digest)


def _refers(records: Sequence[bytes] | None, digests: frozenset[str]) -> bool:
    return any(RECORDS.decode(each).facts.standing.hex() in digests for each in records or ())


def heads(engine: Engine) -> tuple[Block, ...]:
    """The last block of each chain, for whoever wants to hold us to it."""
    of, at = decision_blocks.c, decision_chains.c
    same = and_(of.chain == at.chain, of.number == at.number)
    query = select(decision_blocks).join(decision_chains, same).order_by(of.chain)
    with reading(engine) as connection:
        return tuple(_block(row) for row in connection.execute(query))


def _chain(engine: Engine, chain: str, upto: int) -> Iterator[Row[Any]]:
    """What is sealed meanwhile is left for the next look."""
    of = decision_blocks.c
    query = select(decision_blocks).where(of.chain == chain, of.number <= upto)
    yield from _paged(engine, query.order_by(of.number), (of.number,))


def _block(row: Row[Any]) -> Block:
    return Block(**{name: getattr(row, name) for name in Block.__struct_fields__})


def _records(row: Row[Any]) -> Iterator[Sealed]:
    if row.records is None:
        return
    for at, packed in enumerate(_unpacked(row.records)):
        yield Sealed((row.sealed_at_us, row.chain, row.number, at), RECORDS.decode(packed))


def _unpacked(records: bytes) -> list[bytes]:
    """What cannot be read is not what was sealed: verification says so of an empty list."""
    try:
        return _UNPACK(zlib.decompress(records))
    except (zlib.error, msgspec.DecodeError):
        return []
