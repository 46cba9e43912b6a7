"""What must be true of a gateway at rest, whatever was done to it: the ledger is the book of the
backends, the counters are its sums, and nothing is held, waiting or spooled.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from redis.asyncio import Redis
from sqlalchemy import Engine, select

from billing.periods import Period, window
from gateway.stores import spooled
from gateway.stores.redis import keys, quarantine
from gateway.stores.sql.engine import reading
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import postings, usage_rows
from tests.crash.clients import Reply, keys_of
from tests.scripted_backend import Entry

TAG = "s00"
ZONE = ZoneInfo("Europe/Berlin")  # of the tenant
MOST_UNSEEN = 256  # tokens since the last checkpoint
REST_WITHIN_S = 60


@dataclass(frozen=True)
class Place:
    """Where the traces are. `books`: of each backend, by its id. `recount` has counters compared
    with the ledger, as is done from time to time.
    """

    store: Redis
    engine: Engine
    spool_dir: Path
    books: Mapping[str, list[Entry]]
    recount: Callable[[], Awaitable[None]]
    workers: int = 0  # that live
    key_id: str = ""  # whose own accounts have one of these in their names
    of_key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counters:
    """Money posted on each account, by key; all else must be nothing at rest."""

    posted: dict[str, int]
    held: dict[str, int]
    leased: dict[str, int]
    slots: int


@dataclass
class Found:
    """One cell's end. `estimated`: rows by estimate; `late`: those that correct one, or that came
    when their hold was gone. `phantoms`: estimates for which no backend has an entry. `unbilled`:
    the most tokens that one client got and is not charged for. `unrest`: what is still held or
    waits.
    """

    rows: int = 0
    estimated: int = 0
    phantoms: int = 0
    late: int = 0
    unbilled: int = 0
    unrest: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


async def counters(place: Place) -> Counters:
    posted, held, leased, slots = {}, {}, {}, 0
    async for key in place.store.scan_iter(f"mh:{{{TAG}}}:*"):
        name = key.decode()
        if ":acct:" in name:
            figures = await place.store.hmget(key, ["posted", "held", "leased"])
            posted[name], held[name], leased[name] = (int(figure or 0) for figure in figures)
        elif ":slots:" in name:
            slots += await place.store.zcard(key)
    return Counters(posted, held, leased, slots)


async def unrest(place: Place) -> list[str]:
    """What is still to come to an end; empty at rest."""
    now = await counters(place)
    waiting = {
        "journal": await place.store.xlen(keys.journal(TAG)),
        "holds": await place.store.zcard(keys.holds(TAG)),
        "held": sum(1 for amount in now.held.values() if amount),
        "leases": 0 if place.workers else await place.store.zcard(keys.leases(TAG)),
        "leased": 0 if place.workers else sum(1 for amount in now.leased.values() if amount),
        "slots": now.slots,
        "closed": not (await place.store.get(keys.epoch(TAG)) or b"").startswith(b"open"),
        "spools": await asyncio.to_thread(_unfinished, place),
    }
    return [f"{name}: {count}" for name, count in waiting.items() if count]


def _unfinished(place: Place) -> int:
    """Spools of the dead, and requests that the living are at."""
    writers = spooled.writers(place.spool_dir)
    count = max(0, len(writers) - place.workers)
    for writer in writers if place.workers else ():
        try:
            count += len(spooled.open_requests(spooled.read(writer)))
        except FileNotFoundError:
            count += 1  # it is being replayed
    return count


async def at_rest(place: Place) -> list[str]:
    """Waits for it; what is left when it takes too long."""
    deadline = time.monotonic() + REST_WITHIN_S
    while left := await unrest(place):
        if time.monotonic() > deadline:
            return left
        await asyncio.sleep(0.02)
    return []


async def check(place: Place, since_us: int, replies: Sequence[Reply]) -> Found:
    """Everything that happened since, at rest."""
    found = Found()
    found.unrest = await at_rest(place)
    found.violations += [f"not at rest: {left}" for left in found.unrest]
    rows = await asyncio.to_thread(_rows, place, since_us)
    found.rows = len(rows)
    found.estimated = sum(row.hold == "estimated" for row in rows)
    found.late = sum(row.hold in {"absent", "reversed"} for row in rows)
    found.violations += _against_the_books(place, _net(rows), found)
    if any(row.model == "dead" for row in rows):
        found.violations.append("a row for what was never sent")
    found.violations += _against_the_clients(rows, replies, found)
    found.violations += _asked_once(place)
    found.violations += await _against_the_counters(place, late=found.late > 0)
    found.violations += await asyncio.to_thread(_within_the_ledger, place)
    if aside := await quarantine.ids(place.store, TAG):
        found.violations.append(f"set aside: {sorted(aside)}")
    return found


def _rows(place: Place, since_us: int) -> list[Any]:
    with reading(place.engine) as connection:
        query = select(usage_rows).where(usage_rows.c.admitted_at_us >= since_us)
        return list(connection.execute(query))


def _net(rows: Sequence[Any]) -> list[Any]:
    """Without what was taken back, and without what takes it back."""
    taken_back = {r.event_id.removesuffix(":reversed") for r in rows if r.hold == "reversed"}
    return [r for r in rows if r.hold != "reversed" and r.event_id not in taken_back]


def _against_the_books(place: Place, rows: Sequence[Any], found: Found) -> list[str]:
    faults = []
    entries: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for backend_id, book in place.books.items():
        for entry in book:
            entries[entry.request_id, backend_id].append(entry)
    for row in rows:
        known = entries.get((row.request_id, row.backend_id))
        if known:
            faults += _row(row, known.pop())
            continue
        found.phantoms += 1
        if row.provenance != "estimated":
            faults.append(f"{row.event_id}: {row.provenance}, in no backend's book")
    lost = [request for (request, _), left in entries.items() for _ in left]
    faults += [f"{request}: a backend did it, the ledger has no row" for request in lost]
    winners = Counter(row.request_id for row in rows if row.winner)
    faults += [f"{request}: charged {n} times" for request, n in winners.items() if n > 1]
    return faults


def _row(row: Any, entry: Entry) -> list[str]:
    told = f"{row.event_id} ({row.provenance}, {row.hold})"
    reported = entry.reported or {}
    if row.provenance == "reported":
        figures = (row.input_tokens, row.output_tokens)
        truth = (reported.get("prompt_tokens"), reported.get("completion_tokens"))
        generated = (entry.prompt_tokens, entry.generated_tokens)
        return [] if figures == truth == generated else [f"{told}: {figures}, the book has {truth}"]
    if not row.winner:
        return [f"{told}: lost and charged"] if row.charge_picos else []
    faults = []
    if row.output_tokens > entry.generated_tokens:
        faults.append(f"{told}: {row.output_tokens} of {entry.generated_tokens} generated")
    if row.hold == "estimated" and row.input_tokens < entry.prompt_tokens:
        faults.append(f"{told}: input {row.input_tokens} of {entry.prompt_tokens}")
    return faults


def _against_the_clients(rows: Sequence[Any], replies: Sequence[Reply], found: Found) -> list[str]:
    """What a client has got is charged: all of a whole answer, of one that was cut all but what
    came after the last checkpoint.
    """
    charged = {row.request_id: row.output_tokens for row in _net(rows) if row.winner}
    faults = []
    for reply in replies:
        missing = reply.words - charged.get(reply.request_id, 0)
        found.unbilled = max(found.unbilled, missing)
        if missing > (0 if reply.whole else MOST_UNSEEN):
            faults.append(f"{reply}: {missing} tokens more than were charged")
        if reply.words and reply.request_id not in charged:
            faults.append(f"{reply}: not charged at all")
    return faults


def _asked_once(place: Place) -> list[str]:
    """However often a request comes under one idempotency key, a backend hears of it once."""
    texts = [str(entry.body) for book in place.books.values() for entry in book]
    heard = Counter(key for text in texts for key in set(keys_of(text)))
    return [f"{key} was asked {times} times" for key, times in heard.items() if times > 1]


async def _against_the_counters(place: Place, *, late: bool) -> list[str]:
    """Every account shows the sum of its window's rows. Usage that came to light late moved no
    counter; the next recount puts that right.
    """
    faults = await _miscounted(place)
    if late and faults:
        await place.recount()
        deadline = time.monotonic() + REST_WITHIN_S
        while faults and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            faults = await _miscounted(place)
    return faults


async def _miscounted(place: Place) -> list[str]:
    shown = await counters(place)
    rows = await asyncio.to_thread(_rows, place, 0)
    faults = []
    for name, posted in shown.posted.items():
        tokens, window_id = ":tpd:" in name, name.rpartition(":")[2]
        own = any(part in name for part in place.of_key)
        counted = [row for row in rows if not own or row.key_id == place.key_id]
        due = sum(_counted(row, tokens) for row in counted if _window(row, window_id) == window_id)
        if posted != due:
            faults.append(f"{name}: {posted} posted, the ledger has {due}")
    return faults


def _counted(row: Any, tokens: bool) -> int:
    if not tokens:
        return int(row.counter_nanos)
    used = row.input_tokens + row.cache_read_tokens + row.output_tokens
    return used if row.winner else 0


def _window(row: Any, like: str) -> str:
    period: Period = "day" if like.startswith("d") else "month"
    return window(period, ZONE, row.admitted_at_us).id


def _within_the_ledger(place: Place) -> list[str]:
    """Rollups and postings say what the rows say; over everything that ever happened here."""
    with reading(place.engine) as connection:
        rows = list(connection.execute(select(usage_rows)))
        buckets = list(connection.execute(select(rolled)))
        posted = list(connection.execute(select(postings)))
    charge = sum(row.charge_picos for row in rows)
    cost = sum(row.cost_picos for row in rows)
    faults = []
    if (sum(r.charge_picos for r in buckets), sum(r.cost_picos for r in buckets)) != (charge, cost):
        faults.append("the rollups are not the rows' sums")
    if sum(p.amount_picos for p in posted) != 0:
        faults.append("the postings do not balance")
    return faults
