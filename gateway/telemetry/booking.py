"""Books a finished request on every family. Its series are found by one look: requests of a kind
share all their labels, and there are few kinds.
"""

from typing import Final

import msgspec

from gateway.telemetry import genai
from gateway.telemetry.genai import GenAi, Operated
from gateway.telemetry.instruments import Ended, Instruments, Tried, Used
from gateway.telemetry.metrics import Registry
from gateway.telemetry.names import Convention
from gateway.telemetry.record import AttemptRecord, RequestRecord

_KINDS: Final = 4096
_NOWHERE: Final = AttemptRecord(
    backend_id="", region="", server_address="", server_port=0, started_us=0, finished_us=0
)


class _Kind(msgspec.Struct, frozen=True, gc=False):
    """The series of all requests that share their labels."""

    ended: Ended
    used: Used | None
    tried: Tried | None  # the last try: the one that answered, if any did
    operated: Operated | None


class Booking:
    """All families of requests, of one process."""

    def __init__(self, registry: Registry, convention: Convention) -> None:
        self._instruments = Instruments(registry)
        self._genai = GenAi(registry, convention)
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def book(self, record: RequestRecord) -> None:
        attempts = record.attempts
        last = attempts[-1] if attempts else _NOWHERE
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
        )
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._new_kind(key, record)
        self._instruments.book(record, kind.ended, kind.used)
        if kind.tried is not None:
            kind.tried.book(last)
            if len(attempts) > 1:
                self._book_failed(record, attempts[:-1])
        if kind.operated is not None:
            genai.book(record, kind.operated)

    def _book_failed(self, record: RequestRecord, attempts: tuple[AttemptRecord, ...]) -> None:
        """Tries before the last one: rare enough to look for their series."""
        for attempt in attempts:
            self._instruments.tried(attempt, record.method).book(attempt)

    def _new_kind(self, key: tuple[object, ...], record: RequestRecord) -> _Kind:
        """Kinds are only ways to series; forgetting all of them loses no figure."""
        if len(self._kinds) >= _KINDS:
            self._kinds.clear()
        kind = self._kinds[key] = _Kind(
            ended=self._instruments.ended(record),
            used=self._instruments.used(record, record.provenance) if record.provenance else None,
            tried=self._instruments.tried(record.attempts[-1], record.method)
            if record.attempts
            else None,
            operated=self._genai.operated(record),
        )
        return kind
