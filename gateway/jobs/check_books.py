"""The nightly self-check: everything that follows from the ledger's rows derived anew, and its
chains followed. What does not agree is said in the log, in `status`, as a metric, and to every
channel that wants to hear of the rule `ledger`.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gateway import clock, ids
from gateway.jobs.audience import audience
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import alerts, books, self_checks
from gateway.stores.sql.books import Books
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.records import TakenError

EVERY_S: Final = 300.0
_HOUR_US: Final = 3_600_000_000
_BEGINS_US: Final = 3 * _HOUR_US  # three in the morning, UTC
_GIVEN_UP_US: Final = 12 * _HOUR_US  # after so long, whoever began a check is taken for dead
_INTERRUPT_EVERY_S: Final = 0.1
_LOG: Final = logging.getLogger(__name__)


@dataclass
class _Under:
    """The driver's connection that a check is reading by; from another thread it is only ever
    interrupted.
    """

    driver: Any = None
    stopped: bool = False


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """The check of the night, if nobody has made it yet."""
    now_us = clock.now_us()
    day = clock.rfc3339(now_us - _BEGINS_US)[:10]
    if await asyncio.to_thread(_claimed, deps.engine, day, now_us):
        found = await _checked(deps.engine, stopping)
        if found is None:
            await asyncio.to_thread(_give_up, deps.engine, day)
            return
        await asyncio.to_thread(_end, deps.engine, day, found)
    await asyncio.to_thread(_show, deps)


def _claimed(engine: Engine, day: str, now_us: int) -> bool:
    with reading(engine) as connection:
        if not self_checks.due(connection, day, now_us - _GIVEN_UP_US):
            return False
    with suppress(TakenError), transaction(engine) as connection:
        return self_checks.claim(connection, day, now_us, now_us - _GIVEN_UP_US)
    return False


async def _checked(engine: Engine, stopping: asyncio.Event) -> Books | None:
    """None where the process is to stop first (the check is interrupted, wherever it is), or the
    connection was lost. One that fails otherwise says so, as a fault.
    """
    under = _Under()
    check = asyncio.create_task(asyncio.to_thread(_check, engine, under))
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([check, stop], return_when=asyncio.FIRST_COMPLETED)
        while not check.done():
            under.stopped = True
            _interrupt(under.driver)
            await asyncio.wait([check], timeout=_INTERRUPT_EVERY_S)
        return check.result()
    except Exception as fault:  # noqa: BLE001 - whatever it was, it is told
        if under.stopped and isinstance(fault, SQLAlchemyError):
            return None
        if isinstance(fault, DBAPIError) and fault.connection_invalidated:
            _LOG.warning("the self-check of the ledger lost its connection, and begins anew")
            return None
        _LOG.exception("the self-check of the ledger came to no end")
        return books.unfinished(fault)
    finally:
        stop.cancel()


def _check(engine: Engine, under: _Under) -> Books:
    with reading(engine) as connection:
        under.driver = connection.connection.driver_connection
        try:
            return books.check(connection)
        finally:
            under.driver = None


def _interrupt(driver: Any) -> None:
    """Whatever statement it is at. It may end of itself in this moment."""
    if driver is not None:
        (driver.interrupt if hasattr(driver, "interrupt") else driver.cancel)()


def _give_up(engine: Engine, day: str) -> None:
    with transaction(engine) as connection:
        self_checks.give_up(connection, day)


def _end(engine: Engine, day: str, found: Books) -> None:
    """Told before it is ended: whoever dies in between leaves it to be made and told again, and an
    alert is one however often it is told.
    """
    for fault in found.faults:
        _LOG.error("the ledger does not agree with itself: %s", fault)
    if found.faults:
        _tell(engine, day, len(found.faults))
    with transaction(engine) as connection:
        self_checks.end(connection, day, found, clock.now_us())


def _tell(engine: Engine, day: str, faults: int) -> None:
    """Every tenant, in words that say nothing of another."""
    now_us = clock.now_us()
    with reading(engine) as connection:
        everybody = audience(connection)
    for tenant in everybody.tenants.values():
        alert = alerts.Alert(
            id=ids.new("alert"),
            tenant_id=tenant.id,
            scope_kind="tenant",
            scope_id=tenant.id,
            budget_id="",
            window_id=f"d{day}",
            rule="ledger",
            mark=tenant.id,
            cap="0",
            amount="0",
            expected="0",
            currency=tenant.currency,
            message=f"the nightly self-check of the ledger found {faults} faults",
            remedy="issue no invoice before an operator has run `meterhouse doctor --verify-ledger`"
            ", which names them",
            link="/admin/v1/status",
            fired_at_us=now_us,
        )
        channels = everybody.of(tenant.id, "ledger", 0, tenant.currency)
        with suppress(TakenError), transaction(engine) as connection:
            alerts.fire(connection, alert, channels)


def _show(deps: JobDeps) -> None:
    """As a metric: also after a restart, and in a process that made no check itself."""
    with reading(deps.engine) as connection:
        last = self_checks.latest(connection)
    if last is not None and last.ended_at_us is not None:
        deps.checked.faults, deps.checked.at_us = len(last.faults), last.ended_at_us
