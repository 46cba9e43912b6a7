"""What must be true of a gateway at rest, whatever was done to it: the ledger is the book of the
backends, the counters are its sums, and nothing is held, waiting or spooled.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from gateway.stores import spooled
from gateway.stores.redis import keys, quarantine
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import postings, rollups, usage_rows
from tests.crash.clients import Reply
from tests.crash.house import CrashHouse
from tests.scripted_backend import Entry

TAG = "s00"
MOST_UNSEEN = 256 + 64  # tokens since the last checkpoint, and what was on its way to us
REST_WITHIN_S = 30


@dataclass(frozen=True)
class Counters:
    """Money posted on each account, by key; `held` and slots must be nothing at rest."""

    posted: dict[str, int]
    held: dict[str, int]
    slots: int


@dataclass
class Found:
    """One cell's end. `estimated`: rows by estimate; `late`: those that correct one, or that came
    when their hold was gone: the ledger has them, the counters do not. `phantoms`: estimates for
    which no backend has an entry.
    """

    rows: int = 0
    estimated: int = 0
    phantoms: int = 0
    late: int = 0
    violations: list[str] = field(default_factory=list)


async def counters(house: CrashHouse) -> Counters:
    posted, held, slots = {}, {}, 0
    async for key in house.store.scan_iter(f"mh:{{{TAG}}}:*"):
        name = key.decode()
        if ":acct:" in name:
            figures = await house.store.hmget(key, ["posted", "held"])
            posted[name], held[name] = (int(figure or 0) for figure in figures)
        elif ":slots:" in name:
            slots += await house.store.zcard(key)
    return Counters(posted, held, slots)


async def unrest(house: CrashHouse) -> list[str]:
    """What is still to come to an end; empty at rest."""
    now = await counters(house)
    waiting = {
        "journal": await house.store.xlen(keys.journal(TAG)),
        "holds": await house.store.zcard(keys.holds(TAG)),
        "held": sum(1 for amount in now.held.values() if amount),
        "slots": now.slots,
        "spools": len(spooled.writers(house.settings.spool_dir)),
    }
    return [f"{name}: {count}" for name, count in waiting.items() if count]


async def at_rest(house: CrashHouse) -> list[str]:
    """Waits for it; what is left when it takes too long."""
    deadline = time.monotonic() + REST_WITHIN_S
    while left := await unrest(house):
        if time.monotonic() > deadline:
            return left
        await asyncio.sleep(0.02)
    return []


async def check(
    house: CrashHouse, before: Counters, since_us: int, replies: Sequence[Reply]
) -> Found:
    """Everything that happened since, at rest."""
    found = Found()
    found.violations += [f"not at rest: {left}" for left in await at_rest(house)]
    rows = await asyncio.to_thread(_rows, house, since_us)
    found.rows = len(rows)
    found.estimated = sum(row.hold == "estimated" for row in rows)
    found.late = sum(row.hold in {"absent", "reversed"} for row in rows)
    found.violations += _against_the_books(house, _net(rows), found)
    if any(row.model == "dead" for row in rows):
        found.violations.append("a row for what was never sent")
    found.violations += _against_the_clients(rows, replies)
    found.violations += _against_the_counters(before, await counters(house), rows)
    found.violations += await asyncio.to_thread(_within_the_ledger, house)
    if aside := await quarantine.ids(house.store, TAG):
        found.violations.append(f"set aside: {sorted(aside)}")
    return found


def _rows(house: CrashHouse, since_us: int) -> list[Any]:
    with reading(house.engine) as connection:
        query = select(usage_rows).where(usage_rows.c.admitted_at_us >= since_us)
        return list(connection.execute(query))


def _net(rows: Sequence[Any]) -> list[Any]:
    """Without what was taken back, and without what takes it back."""
    taken_back = {r.event_id.removesuffix(":reversed") for r in rows if r.hold == "reversed"}
    return [r for r in rows if r.hold != "reversed" and r.event_id not in taken_back]


def _against_the_books(house: CrashHouse, rows: Sequence[Any], found: Found) -> list[str]:
    faults = []
    entries: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for backend, backend_id in zip(house.backends, house.backend_ids, strict=False):
        for entry in backend.book:
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
    if row.hold == "estimated":
        unseen = entry.generated_tokens - row.output_tokens
        if unseen > MOST_UNSEEN:
            faults.append(f"{told}: {unseen} tokens were not seen")
        if row.input_tokens < entry.prompt_tokens:
            faults.append(f"{told}: input {row.input_tokens} of {entry.prompt_tokens}")
    return faults


def _against_the_clients(rows: Sequence[Any], replies: Sequence[Reply]) -> list[str]:
    """Whoever has a whole answer is charged for it, by its backend's own figures."""
    sure = sum(row.winner and row.output_tokens > 0 for row in _net(rows))
    whole = sum(reply.whole for reply in replies)
    return [] if whole <= sure else [f"{whole} whole answers, {sure} charged for output"]


def _against_the_counters(before: Counters, after: Counters, rows: Sequence[Any]) -> list[str]:
    moved = [row for row in rows if row.hold in {"settled", "estimated"}]
    money = sum(row.counter_nanos for row in moved)
    tokens = sum(
        row.input_tokens + row.cache_read_tokens + row.output_tokens for row in moved if row.winner
    )
    faults = []
    for name, posted in after.posted.items():
        due = tokens if ":tpd" in name else money
        got = posted - before.posted.get(name, 0)
        if got != due:
            faults.append(f"{name}: {got} posted, the ledger has {due}")
    return faults


def _within_the_ledger(house: CrashHouse) -> list[str]:
    """Rollups and postings say what the rows say; over everything that ever happened here."""
    with reading(house.engine) as connection:
        rows = list(connection.execute(select(usage_rows)))
        rolled = list(connection.execute(select(rollups)))
        posted = list(connection.execute(select(postings)))
    charge = sum(row.charge_picos for row in rows)
    cost = sum(row.cost_picos for row in rows)
    faults = []
    if (sum(r.charge_picos for r in rolled), sum(r.cost_picos for r in rolled)) != (charge, cost):
        faults.append("the rollups are not the rows' sums")
    if sum(p.amount_picos for p in posted) != 0:
        faults.append("the postings do not balance")
    return faults
