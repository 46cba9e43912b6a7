"""One cell: a gateway, a few requests, one strike, the recovery, and the laws."""

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway import ids
from gateway.stores import spooled
from gateway.stores.redis import keys
from gateway.stores.redis.scripts import (
    ADMIT,
    CLOSE_EPOCH,
    CORRECT,
    CUT,
    EXTEND,
    KEEP,
    LEND,
    OPEN_EPOCH,
    RELEASE,
    RESTORE,
    SETTLE,
    SLICE,
    TAKE_BACK,
)
from tests.crash.cells import Call, Cell, Point
from tests.crash.clients import MOST_REPEATS, Reply
from tests.crash.house import CrashHouse
from tests.crash.laws import TAG, Found, check
from tests.crash.processes import SAYS_WITHIN_S, Process
from tests.fault_proxy import FaultProxy, Strike
from tests.scripted_answers import Script

# What a worker calls goes by the script's hash, what jobs do now and then brings its text along.
_BY_HASH = (ADMIT, EXTEND, KEEP, LEND, RELEASE, SETTLE, SLICE, TAKE_BACK)
_BY_TEXT = (CLOSE_EPOCH, CORRECT, CUT, OPEN_EPOCH, RESTORE)
_SENT = {f"{{{s.name}}}".encode(): s.sha for s in _BY_HASH}
_SENT |= {f"{{{s.name}}}".encode(): s.text for s in _BY_TEXT} | {b"{lend again}": LEND.text}


async def play(house: CrashHouse, cell: Cell, stop_s: float) -> Found:
    """What is found at rest; `stop_s` is how long a stopped process stays so."""
    for backend in house.backends:
        backend.book.clear()
        backend.scripts.clear()
    since_us = await _now_us(house)
    act: Callable[[CrashHouse, Cell, float], Awaitable[tuple[list[Reply], bool]]]
    match cell.point:
        case Point(process="worker"):
            act = _worker_point
        case Point():
            act = _jobs_point
        case Call(line="jobs_store" | "jobs_sql"):
            act = _jobs_call
        case _:
            act = _worker_call
    await house.outage("open" if cell.point.store and not cell.point.leased else "bounded")
    replies, struck = await act(house, cell, stop_s)
    house.store_returns()
    for proxy in (house.worker_store, house.jobs_store, house.jobs_sql, *house.lines):
        if proxy is not None:
            proxy.calm()
    found = await check(house.place, since_us, replies)
    if found.estimated > cell.most_estimates:
        found.violations.append(f"{found.estimated} estimates, at most {cell.most_estimates}")
    if found.phantoms > cell.point.phantoms:
        found.violations.append(f"{found.phantoms} rows of what no backend did")
    if not struck:
        found.violations.append(f"the point was not reached: {replies}")
    return found


async def _now_us(house: CrashHouse) -> int:
    seconds, micros = await house.store.time()
    return int(seconds) * 1_000_000 + int(micros)


# ---- strikes at a worker ----


async def _worker_point(house: CrashHouse, cell: Cell, stop_s: float) -> tuple[list[Reply], bool]:
    point = cell.point
    assert isinstance(point, Point)
    await _jobs_run(house)
    worker = await house.start_worker(f"{point.failpoint}={cell.fault}@{point.nth}")
    replies = [await house.ask(point.kind)] if point.nth > 1 or point.store else []
    asked = await _asked(house, point)
    struck = await _struck_there(house, worker, point, asked)
    if struck:
        await _suffer(worker, cell.fault, stop_s)
    house.store_returns()
    return replies + await _ended(house, worker, asked), struck


async def _struck_there(
    house: CrashHouse, worker: Process, point: Point, asked: list["asyncio.Task[Reply]"]
) -> bool:
    """In time; who was refused before anything came of it asks again, as on a busy machine."""
    for _ in range(5):
        if await worker.passed(point.failpoint, within_s=6):
            return True
        if all(one.done() and one.result().status == 503 for one in asked):
            asked += await _asked(house, point)
    return False


async def _ended(
    house: CrashHouse, worker: Process, asked: Sequence["asyncio.Task[Reply]"]
) -> list[Reply]:
    """Everybody has an answer, of the next worker if need be; no worker is left."""
    if not worker.alive:
        worker = await house.start_worker()
    replies = await asyncio.gather(*asked)
    await worker.stop()
    return replies


async def _asked(house: CrashHouse, point: Point | Call) -> list["asyncio.Task[Reply]"]:
    """Two requests under way; and whatever else brings the point about."""
    if point.kind == "retried":
        house.backends[0].scripts += [Script(status=429), Script(status=429)]
    if point.kind.startswith("hedged"):  # the dearer one is asked too, by what two requests earn
        house.backends[0].scripts += [Script(delay_ms=2_000), Script(delay_ms=2_000)]
        house.backends[1].scripts += [Script(delay_ms=200, chunk_delay_ms=50)]
    if point.leased:
        await house.has_leases()
    if point.store in {"away", "back"}:
        house.store_goes()
    tasks = [asyncio.create_task(house.ask(point.kind)) for _ in range(2)]
    if point.name == "refresh.loaded":
        while not any(backend.book for backend in house.backends):
            await asyncio.sleep(0.01)
        await house.make("teams", tenant_id=house.tenant_id, name=ids.new("t"), cost_center="9")
    if point.store == "back":
        await asyncio.wait(tasks)
        house.store_returns()
    return tasks


async def _suffer(process: Process, fault: str, stop_s: float) -> None:
    if fault == "kill":
        await process.ended()
    elif fault == "stop":
        await asyncio.sleep(stop_s)
        process.send(signal.SIGCONT)


async def _worker_call(house: CrashHouse, cell: Cell, stop_s: float) -> tuple[list[Reply], bool]:
    call = cell.point
    assert isinstance(call, Call)
    await _jobs_run(house)
    worker = await house.start_worker()
    replies = [await house.ask(call.kind)]
    await _settled(house)  # what it calls is not to be struck
    if call.leased:
        await house.has_leases()  # nor are theirs
    proxy = house.worker_store if call.line == "worker_store" else house.lines[0]
    strike = _strike(proxy, call, cell.fault, worker)
    asked = await _asked(house, call)
    struck = await _happened(strike)
    if struck:
        await _suffer(worker, cell.fault, stop_s)
    strike.release.set()
    return replies + await _ended(house, worker, asked), struck


async def _settled(house: CrashHouse) -> None:
    async with asyncio.timeout(SAYS_WITHIN_S):
        while await house.store.zcard(keys.holds(TAG)):
            await asyncio.sleep(0.01)


def _strike(proxy: FaultProxy, call: Call, fault: str, victim: Process) -> Strike:
    """A process is killed or stopped when the other end has done what it was asked and before the
    answer is here.
    """
    match = _SENT.get(call.match, call.match)
    number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}.get(fault)
    if number is None:
        wanted = Strike("request_lost" if fault == "request lost" else "reply_lost", match=match)
    else:
        wanted = Strike("hold_reply", match=match, on_done=lambda: victim.send(number))
    if call.first:
        proxy.strike(Strike("notice", match=call.first, on_done=lambda: _arm(proxy, wanted)))
    else:
        proxy.strike(wanted)
    return wanted


def _arm(proxy: FaultProxy, strike: Strike) -> None:
    proxy.strike(strike)


async def _happened(strike: Strike) -> bool:
    try:
        async with asyncio.timeout(SAYS_WITHIN_S):
            await strike.done.wait()
    except TimeoutError:
        return False
    return True


# ---- strikes at the jobs ----


async def _jobs_run(house: CrashHouse) -> None:
    if house.jobs is None or not house.jobs.alive:
        await house.forget_leases()
        await house.start_jobs()


async def _jobs_end(house: CrashHouse) -> None:
    if house.jobs is not None and house.jobs.alive:
        await house.jobs.stop()


async def _jobs_point(house: CrashHouse, cell: Cell, stop_s: float) -> tuple[list[Reply], bool]:
    point = cell.point
    assert isinstance(point, Point)
    await _jobs_end(house)
    left = await _left_by_a_worker(house, point)
    armed = await house.start_jobs(f"{point.failpoint}={cell.fault}@{point.nth}")
    struck = await armed.passed(point.failpoint)
    house.store_returns()
    await _taken_over(house, armed, cell.fault if struck else "", stop_s)
    return await left.ended(), struck


async def _jobs_call(house: CrashHouse, cell: Cell, stop_s: float) -> tuple[list[Reply], bool]:
    call = cell.point
    assert isinstance(call, Call)
    await _jobs_end(house)
    left = await _left_by_a_worker(house, call)
    proxy = house.jobs_sql if call.line == "jobs_sql" else house.jobs_store
    assert proxy is not None
    armed = await house.start_jobs()
    strike = _strike(proxy, call, cell.fault, armed)
    struck = await _happened(strike)
    house.store_returns()
    strike.release.set()
    await _taken_over(house, armed, cell.fault if struck else "", stop_s)
    return await left.ended(), struck


@dataclass(frozen=True)
class Left:
    """What jobs find: requests that were asked, and the worker, if it still serves them."""

    asked: Sequence["asyncio.Task[Reply]"]
    worker: Process | None = None

    async def ended(self) -> list[Reply]:
        replies = await asyncio.gather(*self.asked)
        if self.worker is not None:
            await self.worker.stop()
        return replies


async def _left_by_a_worker(house: CrashHouse, point: Point | Call) -> Left:
    """Requests that nobody has booked yet; with `kill` the worker died over them, with `lose` its
    machine is gone for ever, spool and all; with `wipe` the store has lost everything since.
    """
    worker = await house.start_worker()
    wiped = point.after.startswith("wipe")
    if wiped:  # a new store is opened by jobs
        await _jobs_run(house)
    if wiped or point.store:
        reply = await _served(house, "plain")
        assert reply.whole, reply
    if point.leased:
        await house.has_leases()
    await _jobs_end(house)
    if point.store:
        house.store_goes()
    begun = _under_way(house)
    asked = [asyncio.create_task(_served(house, point.kind)) for _ in range(3)]
    if point.after in {"", "wipe", "forlorn"}:
        await asyncio.wait(asked)
        await worker.stop()
    else:
        while _under_way(house) < begun + 3:
            await asyncio.sleep(0.01)
    await _befallen(house, worker, point.after)
    lives = point.after == "wipe alive"
    if not (lives and point.leased):  # else it would give back what a rebuild is to find lent
        house.store_returns()
    return Left(asked, worker if lives else None)


async def _befallen(house: CrashHouse, worker: Process, after: str) -> None:
    if after in {"kill", "lose"}:
        await worker.kill()
    if after == "lose":
        for writer in spooled.writers(house.settings.spool_dir):
            shutil.rmtree(writer)
        await house.end_leases()
    if after == "forlorn":
        await house.leaves_a_lease()
    if after.startswith("wipe"):
        await house.store.flushall()


async def _served(house: CrashHouse, kind: str) -> Reply:
    """What comes once it is not refused: a busy machine's store is slow, and a wiped one opened."""
    for _ in range(MOST_REPEATS):
        reply = await house.ask(kind)
        if reply.status != 503:
            break
        await asyncio.sleep(0.1)
    return reply


def _under_way(house: CrashHouse) -> int:
    """Requests of which a client has seen some words."""
    return sum(entry.generated_tokens > 4 for b in house.backends for entry in b.book)


async def _taken_over(house: CrashHouse, armed: Process, fault: str, stop_s: float) -> None:
    """Another process goes on while the struck one is dead, stopped, or as good as new."""
    if fault == "stop":
        await house.start_jobs()
        await asyncio.sleep(stop_s)
        armed.send(signal.SIGCONT)
        await armed.stop()
    elif fault == "kill":
        await armed.ended()
        await _jobs_run(house)
    elif fault == "cancel":
        await armed.stop()
        await _jobs_run(house)
