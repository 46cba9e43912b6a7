"""Books finished requests on every family. Their series are found by one look: requests of a kind
share all their labels, and there are few kinds. Those of a kind are booked together: what that
costs is hardly more than booking one of them.
"""

import threading
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.telemetry import genai
from gateway.telemetry.genai import GenAi, Operated
from gateway.telemetry.instruments import Ended, Instruments, Tried, Used
from gateway.telemetry.metrics import Registry
from gateway.telemetry.names import Convention
from gateway.telemetry.record import NOWHERE, AttemptRecord, RequestRecord

_KINDS: Final = 4096
_TOGETHER: Final = 64  # requests of one kind; more of them would be a pause


class _Kind(msgspec.Struct, frozen=True, gc=False):
    """The series of all requests that share their labels."""

    ended: Ended
    used: Used | None
    tried: Tried | None  # the last try: the one that answered, if any did
    operated: Operated | None
    waiting: list[RequestRecord]  # not booked yet


class Booking:
    """All families of requests, of one process. `book` on the event loop; whoever reads the figures
    has those booked first that still wait.
    """

    def __init__(
        self, registry: Registry, convention: Convention, lose: Callable[[int], None]
    ) -> None:
        """`lose` is told how many requests could not be booked."""
        self._instruments = Instruments(registry)
        self._genai = GenAi(registry, convention)
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._settling = threading.Lock()
        self._lose = lose
        registry.before_reading(self.catch_up)

    def book(self, record: RequestRecord) -> None:
        """At the latest when the figures are read."""
        attempts = record.attempts
        last = attempts[-1] if attempts else NOWHERE
        key = (
            record.route,
            record.method,
            record.status,
            record.code,
            record.error_type,
            record.end_by,
            record.end_phase,
            record.model,
            record.tenant_id,
            record.team_id,
            record.provenance,
            record.currency,
            record.operation,
            record.provider,
            record.upstream_model,
            last.backend_id,
            last.region,
            last.server_address,
            last.server_port,
            last.status,
            last.error_type,
            record.rejected,
        )
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._new_kind(key, record)
        kind.waiting.append(record)
        if len(kind.waiting) >= _TOGETHER and self._settling.acquire(blocking=False):
            try:
                self._settle(kind)
            finally:
                self._settling.release()

    def catch_up(self) -> None:
        """Books what waits. Any thread may ask."""
        with self._settling:
            for kind in tuple(self._kinds.values()):
                self._settle(kind)

    def _settle(self, kind: _Kind) -> None:
        """The loop may add to what waits meanwhile."""
        records = kind.waiting[:]
        if not records:
            return
        del kind.waiting[: len(records)]
        try:
            self._book(kind, records)
        except Exception:  # noqa: BLE001 - requests must not fail over their description; counted
            self._lose(len(records))

    def _book(self, kind: _Kind, records: list[RequestRecord]) -> None:
        self._instruments.book(records, kind.ended, kind.used)
        if kind.tried is not None:
            kind.tried.book([record.attempts[-1] for record in records])
            for record in records:
                if len(record.attempts) > 1:
                    self._book_failed(record, record.attempts[:-1])
        if kind.operated is not None:
            genai.book(records, kind.operated)

    def _book_failed(self, record: RequestRecord, attempts: tuple[AttemptRecord, ...]) -> None:
        """Tries before the last one: rare enough to look for their series."""
        for attempt in attempts:
            self._instruments.tried(attempt, record.method).book((attempt,))

    def _new_kind(self, key: tuple[object, ...], record: RequestRecord) -> _Kind:
        """Kinds are only ways to series; forgetting all of them loses no figure."""
        if len(self._kinds) >= _KINDS:
            self.catch_up()
            self._kinds.clear()
        kind = self._kinds[key] = _Kind(
            ended=self._instruments.ended(record),
            used=self._instruments.used(record, record.provenance) if record.provenance else None,
            tried=self._instruments.tried(record.attempts[-1], record.method)
            if record.attempts
            else None,
            operated=self._genai.operated(record),
            waiting=[],
        )
        return kind
