"""The ledger's chains: entries sealed in the transaction that books them, and whether they hold.

An entry's record is a JSON array that anybody can make again from the tables: FORMAT, the source's
columns (a usage row's as `rederived.sealed` has them, those of a row of `idle_bookings`, or what
`invoice_sources` has of an invoice), and the entry's postings in the order of kind and account.
Blocks and hashes are those of `policies.seals`; what was there before the chains began is sealed as
`journal_origin` has it.
"""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from billing.ledger import Posting
from gateway.stores.sql import idle_entries, invoice_sources
from gateway.stores.sql.bulk import among
from gateway.stores.sql.idle_tables import idle_bookings
from gateway.stores.sql.invoice_tables import invoices
from gateway.stores.sql.journal_origin import CHAIN as START
from gateway.stores.sql.journal_origin import VOIDED, Outside
from gateway.stores.sql.journal_origin import record as start_record
from gateway.stores.sql.journal_tables import journal_blocks, journal_chains, journal_start
from gateway.stores.sql.rederived import Booked, Deriving, Told, told_of
from gateway.stores.sql.rederived import sealed as sealed_row
from gateway.stores.sql.tables import postings, usage_rows
from gateway.stores.sql.unreadable import looked_at
from policies.seals import ORIGIN, Block, Chain, content_of, seal

FORMAT: Final = 1
INVOICES: Final = "invoices"  # the chain of what was issued and voided
IDLE: Final = "idle"  # that of what boxes cost beyond their tokens
_USAGE: Final = "usage/"  # the chains of usage rows, one for each shard
_AT_ONCE: Final = 20  # blocks
_IDS_AT_ONCE: Final = 5_000
_LEVEL: Final = 1
_REMADE: Final = "it is not the block whose hash somebody kept"
_STANDINGS: Final = ("draft", "issued", "voided")
_MOST: Final = 20  # faults of one kind that are told
_PACK: Final = msgspec.json.Encoder().encode
_IDS: Final = msgspec.json.Decoder(list[str]).decode


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """`faults`: the first broken link of each chain, and what is in no block."""

    blocks: int
    entries: int
    heads: tuple[Block, ...]
    faults: tuple[str, ...]


def seal_usage(
    connection: Connection,
    chain: str,
    rows: Sequence[Sequence[Any]],
    entries: Sequence[Sequence[Sequence[Any]]],
    now_us: int,
) -> None:
    """Rows of `usage_rows` that have just been booked, and of each its rows of `postings`, all in
    the order of their tables' columns.
    """
    records = [
        _record(sealed_row(row), [tuple(posting[1:]) for posting in entry])
        for row, entry in zip(rows, entries, strict=True)
    ]
    _seal(connection, _USAGE + chain, [str(row[0]) for row in rows], records, now_us)


def seal_invoice(
    connection: Connection,
    entry_id: str,
    source: Sequence[Any],
    posted: Sequence[Posting],
    now_us: int,
) -> None:
    """One that has just been issued or, as `{id}:voided`, voided."""
    record = _record(source, map(told_of, posted), invoice_sources.FORMAT)
    _seal(connection, INVOICES, [entry_id], [record], now_us)


def seal_idle(
    connection: Connection, booking_id: str, posted: Sequence[Posting], now_us: int
) -> None:
    """A booking that has just been made."""
    found = idle_entries.found(connection, booking_id)
    source = () if found is None else found[1]
    _seal(connection, IDLE, [booking_id], [_record(source, map(told_of, posted))], now_us)


def began_at_us(connection: Connection) -> int:
    """When the chains began: what is older is in none."""
    return int(connection.scalar(select(journal_start.c.at_us)) or 0)


def _seal(
    connection: Connection, chain: str, ids: Sequence[str], records: Sequence[bytes], now_us: int
) -> None:
    if not records:
        return
    number, head = _lock(connection, chain)
    block = seal(chain, number + 1, head, records, now_us)
    entries = zlib.compress(_PACK(ids), _LEVEL)
    values = msgspec.structs.asdict(block)
    connection.execute(journal_blocks.insert().values(**values, entries=entries))
    at = journal_chains.c.chain == chain
    connection.execute(
        update(journal_chains).where(at).values(number=block.number, hash=block.hash)
    )


def _lock(connection: Connection, chain: str) -> tuple[int, bytes]:
    insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    first = insert(journal_chains).values(chain=chain, number=0, hash=ORIGIN)
    connection.execute(first.on_conflict_do_nothing())
    at = journal_chains.c.chain == chain
    row = connection.execute(select(journal_chains).where(at).with_for_update()).one()
    return row.number, row.hash


class Anchor(msgspec.Struct, frozen=True):
    """The hash of a block, as somebody kept it elsewhere."""

    chain: str
    number: int
    hash: bytes


def verify(connection: Connection, anchors: Sequence[Anchor] = ()) -> Verified:
    """Every chain from its first block to its head, as of the caller's one view; memory does not
    grow with them, but for the ids of what was issued. What is in the tables and in no block is
    found by counting, and by the digest of what there was when the chains began; a chain that was
    remade as a whole, against anchors.
    """
    kept = {(each.chain, each.number): each.hash for each in anchors}
    heads = connection.execute(select(journal_chains).order_by(journal_chains.c.chain)).all()
    seen = _Seen(_start_of(connection))
    for head in sorted(heads, key=lambda head: bool(head.chain == START)):
        chain = Chain(head.chain)
        walk = partial(_followed, connection, chain, seen, kept)
        seen.faults += looked_at(f"ledger chain {head.chain}", walk)
        if chain.fault is None and (chain.number, chain.head) != (head.number, head.hash):
            seen.faults.append(f"ledger chain {head.chain}: blocks at the end are missing")
        if chain.fault is not None:
            where = f"ledger chain {chain.fault.chain}, block {chain.fault.number}"
            seen.faults.append(f"{where}: {chain.fault.fault}")
    seen.faults += [f"ledger chain {name}, block {n}: it is missing" for name, n in kept]
    if START not in seen.lasts:
        seen.faults.append("what there was when the chains began is not sealed")
    seen.faults.extend(_uncounted(connection, seen))
    seen.faults.extend(_unsealed(connection, seen))
    return Verified(
        blocks=seen.blocks,
        entries=seen.entries,
        heads=tuple(seen.lasts[name] for name in sorted(seen.lasts)),
        faults=tuple(seen.faults),
    )


def _followed(
    connection: Connection, chain: Chain, seen: "_Seen", kept: dict[tuple[str, int], bytes]
) -> Iterator[str]:
    for block, ids in _blocks(connection, chain.chain):
        where = f"ledger chain {block.chain}, block {block.number}"
        yield from looked_at(where, partial(_linked, connection, chain, seen, block, ids))
        chain.number, chain.head = block.number, block.hash  # also of one that cannot be read
        seen.add(block, () if block.chain == START else ids)
        if kept.pop((block.chain, block.number), block.hash) != block.hash:
            yield f"{where}: {_REMADE}"


def _linked(
    connection: Connection, chain: Chain, seen: "_Seen", block: Block, ids: Sequence[str]
) -> tuple[str, ...]:
    chain.follow(block, _records(connection, block, ids, seen))
    return ()


class _Seen:
    """What a walk along the chains has come by."""

    def __init__(self, start: tuple[int, int, int]) -> None:
        self.start = start  # usage rows, postings, and the time in us
        self.outside = Outside()
        self.invoices: set[str] = set()  # entries of the chain of what was issued
        self.idle = 0  # bookings of what boxes cost beyond their tokens
        self.issued_before: frozenset[str] = frozenset()
        self.faults: list[str] = []
        self.lasts: dict[str, Block] = {}
        self.blocks = self.entries = self.usage_rows = self.postings = 0
        self._deriving = Deriving()
        self._derived = 0  # faults of rows that are not what they follow from

    def add(self, block: Block, ids: Sequence[str]) -> None:
        self.lasts[block.chain] = block
        self.blocks += 1
        self.entries += len(ids)

    def derive(
        self, connection: Connection, rows: Sequence[Booked], told: Mapping[str, Sequence[Told]]
    ) -> None:
        for fault in self._deriving.faults(connection, rows, told):
            self._derived += 1
            if self._derived <= _MOST:
                self.faults.append(fault)


def _start_of(connection: Connection) -> tuple[int, int, int]:
    of = journal_start.c
    found = connection.execute(select(of.usage_rows, of.postings, of.at_us)).all()
    return (found[0][0], found[0][1], found[0][2]) if len(found) == 1 else (0, 0, 0)


def _start(connection: Connection, ids: Sequence[str], seen: _Seen) -> list[bytes]:
    """What there was when the chains began, by what is in no block now. Comes after all chains."""
    seen.issued_before = frozenset(ids)
    if seen.start[0]:
        for rows in _all_rows(connection):
            seen.outside.add(row.event_id for row in rows)
            seen.derive(connection, rows, _postings(connection, [row.event_id for row in rows]))
    return [start_record(seen.start, seen.outside.digest(), ids)]


def _all_rows(connection: Connection) -> Iterator[list[Booked]]:
    of, last = usage_rows.c, ""
    query = select(*(of[name] for name in Booked._fields)).order_by(of.event_id)
    while rows := connection.execute(query.where(of.event_id > last).limit(_IDS_AT_ONCE)).all():
        yield [Booked(*row) for row in rows]
        last = rows[-1].event_id


def _unsealed(connection: Connection, seen: _Seen) -> Iterator[str]:
    """Of what was issued: it is in the chain or was there before, and stands as the chain says."""
    of = invoices.c
    of_voids = of.voided_at_us.is_not(None) | of.void_reason.is_not(None)
    found = connection.execute(select(of.id, of.status, of_voids.label("of_voids"))).all()
    standing = {row.id: row.status for row in found}
    for row in found:
        if row.of_voids and row.status != "voided":
            yield f"invoice {row.id} is {row.status}, and says when or why it was voided"
        if row.status not in _STANDINGS:
            yield f"invoice {row.id} is {row.status}, which no invoice is"
    sealed = {entry.removesuffix(VOIDED) for entry in seen.invoices} | seen.issued_before
    for invoice_id in sorted(sealed | standing.keys()):
        status = standing.get(invoice_id, "draft")
        taken_back = f"{invoice_id}{VOIDED}" in seen.invoices
        if status == "draft" and invoice_id in sealed:
            yield f"invoice {invoice_id} was issued, and is a draft or gone"
        elif status != "draft" and invoice_id not in sealed:
            yield f"invoice {invoice_id} is {status}, and is in no block"
        elif status == ("issued" if taken_back else "voided") and (
            taken_back or invoice_id not in seen.issued_before
        ):
            yield f"invoice {invoice_id} is {status}, and the chain says otherwise"


def _uncounted(connection: Connection, seen: _Seen) -> Iterator[str]:
    for name, table, sealed in (
        ("usage rows", usage_rows, seen.usage_rows + seen.start[0]),
        ("postings", postings, seen.postings + seen.start[1]),
        ("idle bookings", idle_bookings, seen.idle),
    ):
        there = connection.scalar(select(func.count()).select_from(table)) or 0
        if there != sealed:
            yield f"there are {there} {name}, and {sealed} were sealed"


def _blocks(connection: Connection, chain: str) -> Iterator[tuple[Block, list[str]]]:
    of, last = journal_blocks.c, 0
    query = select(journal_blocks).where(of.chain == chain).order_by(of.number).limit(_AT_ONCE)
    while rows := connection.execute(query.where(of.number > last)).all():
        for row in rows:
            yield _block(row), _unpacked(row.entries)
        last = rows[-1].number


def _block(row: Row[Any]) -> Block:
    return Block(**{name: getattr(row, name) for name in Block.__struct_fields__})


def _unpacked(entries: bytes) -> list[str]:
    """What cannot be read is not what was sealed: verification says so of an empty list."""
    try:
        return _IDS(zlib.decompress(entries))
    except (zlib.error, msgspec.DecodeError, TypeError):
        return []


def _records(connection: Connection, block: Block, ids: Sequence[str], seen: _Seen) -> list[bytes]:
    if block.chain == START:
        return _start(connection, ids, seen)
    if block.chain == INVOICES:
        return _invoices(connection, block, ids, seen)
    if block.chain == IDLE:
        return _idle(connection, ids, seen)
    return _usage(connection, ids, seen)


def _usage(connection: Connection, ids: Sequence[str], seen: _Seen) -> list[bytes]:
    of = [usage_rows.c[name] for name in Booked._fields]
    rows: dict[str, Booked] = {}
    for some in _parts(ids):
        those = among(connection, usage_rows.c.event_id, some)
        found = connection.execute(select(*of).where(those))
        rows.update({row[0]: Booked(*row) for row in found})
    seen.usage_rows += len(rows)
    told = _postings(connection, ids)
    seen.postings += sum(map(len, told.values()))
    if seen.start[0]:
        seen.outside.take(ids)  # and its start derives every row
    else:
        seen.derive(connection, list(rows.values()), told)
    return [_record(sealed_row(rows[i]), told.get(i, ())) for i in ids if i in rows]


def _idle(connection: Connection, ids: Sequence[str], seen: _Seen) -> list[bytes]:
    records = []
    for booking_id in ids:
        kept = idle_entries.found(connection, booking_id)
        if kept is None:
            continue
        row, source = kept
        wanted = idle_entries.derived(row)
        there = _postings(connection, sorted({each.event_id for each in wanted}))
        told = [each for entry in there.values() for each in entry]
        seen.idle, seen.postings = seen.idle + 1, seen.postings + len(told)
        if sorted(told) != sorted(map(told_of, wanted)):
            seen.faults.append(
                f"idle booking {booking_id}: its postings are not those that follow from it"
            )
        records.append(_record(source, told))
    return records


def _invoices(connection: Connection, block: Block, ids: Sequence[str], seen: _Seen) -> list[bytes]:
    """One at a time: a block has one. What was sealed in an earlier format is read in that."""
    found: list[tuple[Any, str, Sequence[Told]]] = []
    for entry_id in ids:
        invoice_id, voided = entry_id.removesuffix(VOIDED), entry_id.endswith(VOIDED)
        row = connection.execute(select(invoices).where(invoices.c.id == invoice_id)).one_or_none()
        kinds = ("void",) if voided else ("invoice", "credit_note")
        told = _postings(connection, [invoice_id], kinds)
        seen.invoices.add(entry_id)
        seen.postings += sum(map(len, told.values()))
        if row is not None:
            found.append((row, entry_id, told.get(invoice_id, ())))
    versions = (invoice_sources.FORMAT, *invoice_sources.EARLIER)
    readings = ([_read(connection, each, version) for each in found] for version in versions)
    records = next(readings)
    if content_of(records)[0] == block.content:
        return records
    return next((each for each in readings if content_of(each)[0] == block.content), records)


def _read(connection: Connection, entry: tuple[Any, str, Sequence[Told]], version: int) -> bytes:
    row, entry_id, told = entry
    source = invoice_sources.source_of(connection, row, entry_id, version)
    return _record(source, told, version)


def _postings(
    connection: Connection, ids: Sequence[str], kinds: Sequence[str] = ()
) -> Mapping[str, list[Told]]:
    of, found = postings.c, defaultdict[str, list[Told]](list)
    for some in _parts(ids):
        query = select(postings).where(among(connection, of.event_id, some))
        if kinds:
            query = query.where(of.kind.in_(kinds))
        for row in connection.execute(query):
            found[row.event_id].append(
                (row.kind, row.account, row.tenant_id, row.amount_picos, row.currency, row.at_us)
            )
    return found


def _record(source: Sequence[Any], told: Iterable[Told], version: int = FORMAT) -> bytes:
    return _PACK((version, source, sorted(told)))


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        yield ids[start : start + _IDS_AT_ONCE]
