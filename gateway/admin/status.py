"""Status: backends with live percentiles, load and breaker; workers; stores; queues; versions."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import SQLAlchemyError

from gateway import __version__, clock
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.roles import Right
from gateway.backends.health import FAILED
from gateway.stores.redis import backlog, workers
from gateway.stores.redis.channel import Channels, StoreUnavailable
from gateway.stores.redis.refused import Refused
from gateway.stores.redis.workers import BackendReport, Counts, DeskReport, Report
from gateway.stores.sql import backends, configuration, self_checks
from gateway.stores.sql.engine import reading
from gateway.stores.sql.rows import Backend
from gateway.stores.sql.tables import tenants
from policies.latency import SLOT_US, LatencyWindow

_WITHIN_S: Final = 2.0  # somebody is looking at a page
_WORST_FIRST: Final = ("open", "half_open", "closed")


class Percentiles(msgspec.Struct, frozen=True):
    """Milliseconds over the last minute; null under 20 samples."""

    p50: float | None
    p95: float | None
    p99: float | None
    samples: int


class BackendStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One backend and model, over all workers."""

    id: str
    name: str
    upstream_model: str | None
    region: str
    placement: str
    breaker: Literal["closed", "half_open", "open", "unknown"]
    in_flight: int
    in_flight_tokens: int
    max_concurrency: int | None
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    total_ms: Percentiles
    outcomes: int  # of the last minute that say something of the backend
    failures: int  # among them
    share_permille: int  # of its traffic that the worker which trusts it least gives it
    room: int | None  # requests at once that it takes well, of all workers; null: no trouble so far
    resting: bool  # it asked to be left alone
    queued_there: int | None  # as it says itself; null: it does not
    cache_used_permille: int | None


class BackendQueue(msgspec.Struct, frozen=True, kw_only=True):
    """A backend with `max_concurrency`, over all workers that have used it of late."""

    id: str
    name: str
    max_concurrency: int | None
    slots: int  # lent to workers
    busy: int  # of them: with a request in them
    waiting: int
    longest_wait_ms: float


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    worker: str
    version: str
    seen_at: str
    started_at: str
    revision: int
    in_flight: int
    unsettled: int


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    ok: bool
    version: str
    answer_ms: float | None
    detail: str


class AsideStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An event that the ledger refused. `again_at`: when it is tried again; null: never."""

    id: str
    reason: str
    at: str
    again_at: str | None


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    tag: str
    journal_entries: int
    journal_oldest: str | None  # when the oldest of them was settled
    quarantined: int
    aside: tuple[AsideStatus, ...]  # the first of them
    holds: int


class LedgerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the last nightly self-check of the ledger came to. `heads` are to be kept elsewhere."""

    checked_at: str
    age_s: int  # a check is made every night
    took_ms: int
    ok: bool
    usage_rows: int
    invoices: int
    entries: int  # that are sealed
    faults: tuple[str, ...]
    heads: tuple[str, ...]


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    at: str
    revision: int | None
    jurisdictions: tuple[str, ...]  # where the gateway itself stands
    backends: tuple[BackendStatus, ...]
    backend_queues: tuple[BackendQueue, ...]
    workers: tuple[WorkerStatus, ...]
    stores: dict[str, StoreStatus]
    queues: tuple[QueueStatus, ...]
    ledger: LedgerStatus | None  # null before the first check, and to whom it is not shown


def operations() -> list[Operation]:
    async def status(call: Call) -> Answer:
        seen = await read(call.deps.engine, call.deps.store, call.deps.jurisdictions)
        return Answer(seen if call.principal.everywhere else _narrowed(seen))

    return [
        Operation(
            "GET", "/status", "status", "See how everything is", status,
            right=Right.STATUS_READ, answers=StatusView,
            description="Who stands at a tenant or team sees that the stores answer, and no more.",
        )
    ]  # fmt: skip


async def read(
    engine: Engine, channels: Channels | None, stands_in: frozenset[str] = frozenset()
) -> StatusView:
    """Answers with whatever is down left empty and said so; status must work when nothing does."""
    now_us = clock.now_us()
    database, revision, listed, tags = await asyncio.to_thread(_database, engine)
    store, reports, queues = await _store(channels, tags, now_us)
    return StatusView(
        version=__version__,
        at=clock.rfc3339(now_us),
        revision=revision,
        jurisdictions=tuple(sorted(stands_in)),
        backends=tuple(backend_status(listed, reports)),
        backend_queues=tuple(_backend_queues(listed, reports)),
        workers=tuple(_worker(report) for report in reports),
        stores={"database": database, "redis": store},
        queues=queues,
        ledger=await asyncio.to_thread(_ledger, engine),
    )


def _ledger(engine: Engine) -> LedgerStatus | None:
    try:
        with reading(engine) as connection:
            last = self_checks.latest(connection)
    except SQLAlchemyError:
        return None  # the database's own status says so
    if last is None or last.ended_at_us is None:
        return None
    return LedgerStatus(
        checked_at=clock.rfc3339(last.ended_at_us),
        age_s=(clock.now_us() - last.ended_at_us) // 1_000_000,
        took_ms=(last.ended_at_us - last.began_at_us) // 1000,
        ok=not last.faults,
        usage_rows=last.usage_rows,
        invoices=last.invoices,
        entries=last.entries,
        faults=last.faults,
        heads=last.heads,
    )


def backend_status(listed: Iterable[Backend], reports: Iterable[Report]) -> Iterable[BackendStatus]:
    """Every configured backend, once for each upstream model that any worker has tried."""
    seen: dict[str, dict[str, list[BackendReport]]] = {}
    for report in reports:
        for each in report.backends:
            models = seen.setdefault(each.backend_id, {})
            models.setdefault(each.upstream_model, []).append(each)
    for backend in listed:
        for model, views in sorted(seen.get(backend.id, {None: []}).items()):
            yield _backend(backend, model, views)


def _backend(
    backend: Backend, upstream_model: str | None, views: list[BackendReport]
) -> BackendStatus:
    states = {view.breaker for view in views}
    worst = next((state for state in _WORST_FIRST if state in states), "unknown")
    return BackendStatus(
        id=backend.id,
        name=backend.name,
        upstream_model=upstream_model,
        region=backend.region,
        placement=backend.placement,
        breaker=worst,  # type: ignore[arg-type]
        in_flight=sum(view.in_flight for view in views),
        in_flight_tokens=sum(view.in_flight_tokens for view in views),
        max_concurrency=backend.max_concurrency,
        ttft_ms=_percentiles(view.ttft for view in views),
        tpot_ms=_percentiles(view.tpot for view in views),
        total_ms=_percentiles(view.total for view in views),
        outcomes=sum(sum(view.outcomes.values()) for view in views),
        failures=sum(view.outcomes.get(FAILED, 0) for view in views),
        share_permille=min((view.share for view in views), default=1_000),
        room=_room(views),
        resting=any(view.rest_ms for view in views),
        queued_there=_most(view.waiting for view in views),
        cache_used_permille=_most(view.cache_permille for view in views),
    )


def _room(views: list[BackendReport]) -> int | None:
    """A worker without a limit of its own takes no part in one."""
    limits = [view.room for view in views if view.room is not None]
    return sum(limits) if limits else None


def _most(said: Iterable[int | None]) -> int | None:
    return max((each for each in said if each is not None), default=None)


def _backend_queues(listed: Iterable[Backend], reports: Iterable[Report]) -> Iterable[BackendQueue]:
    desks: dict[str, list[DeskReport]] = {}
    for report in reports:
        for desk in report.desks:
            desks.setdefault(desk.backend_id, []).append(desk)
    for backend in listed:
        if (seen := desks.get(backend.id)) is not None:
            yield BackendQueue(
                id=backend.id,
                name=backend.name,
                max_concurrency=backend.max_concurrency,
                slots=sum(desk.slots for desk in seen),
                busy=sum(desk.busy for desk in seen),
                waiting=sum(desk.waiting for desk in seen),
                longest_wait_ms=max(desk.longest_us for desk in seen) / 1000,
            )


def _percentiles(parts: Iterable[Counts]) -> Percentiles:
    window = LatencyWindow()
    for counts in parts:
        window.merge({0: counts}, SLOT_US - 1)

    def of(percent: int) -> float | None:
        value_us = window.percentile(percent, SLOT_US - 1)
        return None if value_us is None else value_us / 1000

    return Percentiles(of(50), of(95), of(99), window.samples(SLOT_US - 1))


def _worker(report: Report) -> WorkerStatus:
    return WorkerStatus(
        worker=report.worker,
        version=report.version,
        seen_at=clock.rfc3339(report.at_us),
        started_at=clock.rfc3339(report.started_us),
        revision=report.revision,
        in_flight=report.in_flight,
        unsettled=report.unsettled,
    )


def _database(
    engine: Engine,
) -> tuple[StoreStatus, int | None, tuple[Backend, ...], tuple[str, ...]]:
    kind = engine.dialect.name
    began_us = clock.monotonic_us()
    try:
        with reading(engine) as connection:
            version = _database_version(connection)
            listed = backends.RECORDS.all(connection)
            tags = tuple(connection.scalars(select(tenants.c.shard).distinct().order_by("shard")))
        revision = configuration.revision(engine)
    except SQLAlchemyError as fault:
        return _down(kind, fault), None, (), ()
    answer_ms = (clock.monotonic_us() - began_us) / 1000
    state = StoreStatus(kind=kind, ok=True, version=version, answer_ms=answer_ms, detail="")
    return state, revision, listed, tags


def _database_version(connection: Connection) -> str:
    question = "SHOW server_version" if connection.dialect.name == "postgresql" else None
    found = connection.scalar(text(question or "SELECT sqlite_version()"))
    return str(found)


async def _store(
    channels: Channels | None, tags: Sequence[str], now_us: int
) -> tuple[StoreStatus, tuple[Report, ...], tuple[QueueStatus, ...]]:
    if channels is None:
        return _down("redis", ConnectionError()), (), ()
    (state, reports), queues = await asyncio.gather(
        _house(channels, now_us), asyncio.gather(*(_queue(channels, tag) for tag in tags))
    )
    away = [tag for tag, queue in zip(tags, queues, strict=True) if queue is None]
    if away and len(away) < len(tags):  # a shard or two of a cluster
        detail = f"out of reach, their tenants are refused: {', '.join(away)}"
        state = msgspec.structs.replace(state, ok=False, detail=detail)
    return state, reports, tuple(queue for queue in queues if queue is not None)


async def _house(channels: Channels, now_us: int) -> tuple[StoreStatus, tuple[Report, ...]]:
    """The server that keeps what belongs to no tenant, and what the workers have told it."""
    began_us = clock.monotonic_us()
    try:
        async with asyncio.timeout(_WITHIN_S):
            server = _fields(await channels.house.ask("INFO", "server"))
            answer_ms = (clock.monotonic_us() - began_us) / 1000
            memory = _fields(await channels.house.ask("INFO", "memory"))
            reports = tuple(await workers.read(channels, now_us))
    except (StoreUnavailable, TimeoutError) as fault:
        return _down("redis", fault), ()
    state = StoreStatus(
        kind="valkey" if "valkey_version" in server else "redis",
        ok=True,
        version=server.get("valkey_version") or server.get("redis_version") or "",
        answer_ms=answer_ms,
        detail=f"{memory.get('used_memory_human', '?')} used",
    )
    return state, reports


def _fields(info: bytes) -> dict[str, str]:
    """The store's INFO: a `name:value` a line, between headings."""
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


async def _queue(channels: Channels, tag: str) -> QueueStatus | None:
    """None: its shard is out of reach."""
    try:
        async with asyncio.timeout(_WITHIN_S):
            waiting = await backlog.read(channels, tag)
    except (StoreUnavailable, TimeoutError):
        return None
    oldest_ms = waiting.oldest_ms
    return QueueStatus(
        tag=tag,
        journal_entries=waiting.journal_entries,
        journal_oldest=None if oldest_ms is None else clock.rfc3339(oldest_ms * 1000),
        quarantined=waiting.quarantined,
        aside=tuple(map(_aside, waiting.aside)),
        holds=waiting.holds,
    )


def _aside(each: Refused) -> AsideStatus:
    again = clock.rfc3339(each.again_us) if each.again_us else None
    return AsideStatus(id=each.id, reason=each.reason, at=clock.rfc3339(each.at_us), again_at=again)


def _narrowed(seen: StatusView) -> StatusView:
    """Backends, workers and queues are everybody's: what they do tells of other tenants."""
    stores = {
        name: msgspec.structs.replace(each, version="", answer_ms=None, detail="")
        for name, each in seen.stores.items()
    }
    return msgspec.structs.replace(
        seen,
        ledger=None,
        revision=None,
        backends=(),
        backend_queues=(),
        workers=(),
        queues=(),
        stores=stores,
    )


def _down(kind: str, fault: Exception) -> StoreStatus:
    """The kind of fault only: a driver's message may repeat the address and its password."""
    return StoreStatus(kind=kind, ok=False, version="", answer_ms=None, detail=type(fault).__name__)
