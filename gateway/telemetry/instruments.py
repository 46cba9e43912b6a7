"""The HTTP families and those of our own: which series a request is booked on, and how."""

from collections.abc import Sequence
from typing import Final

import msgspec

from billing.meters import Provenance
from gateway.telemetry import names
from gateway.telemetry.genai import request_error
from gateway.telemetry.metrics import (
    COUNTER,
    HISTOGRAM,
    Count,
    Counter,
    Distribution,
    Family,
    Histogram,
    Registry,
)
from gateway.telemetry.record import AttemptRecord, RequestRecord

_MICROS: Final = 1_000_000
_NANOS: Final = 1_000_000_000
_PICOS_OF_A_NANO: Final = 1000
_SCHEME: Final = "http"  # TLS ends before us


class Ended(msgspec.Struct, frozen=True, gc=False):
    """Every request."""

    duration: Distribution
    overhead: Distribution
    end: Count
    refusal: Count | None
    rejections: tuple[tuple[Count, int], ...]  # and how many candidates of each such request


class Used(msgspec.Struct, frozen=True, gc=False):
    """A request whose usage is known."""

    input: Count
    cache_read: Count
    cache_write: Count
    output: Count
    charge: Count


class Tried(msgspec.Struct, frozen=True, gc=False):
    """One try at a backend."""

    count: Count
    duration: Distribution
    first_byte: Distribution

    def book(self, attempts: Sequence[AttemptRecord]) -> None:
        self.count.inc(len(attempts))
        self.duration.observe_all([a.finished_us - a.started_us for a in attempts])
        self.first_byte.observe_all(
            [a.first_byte_us - a.started_us for a in attempts if a.first_byte_us]
        )


class Instruments:
    """The HTTP families and our own, of one process."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._declare_requests()
        self._declare_usage()
        self._declare_attempts()

    def ended(self, record: RequestRecord) -> Ended:
        """The series of requests that ended like this one."""
        return Ended(
            duration=self._duration.child(
                *(record.method, _SCHEME, record.route, str(record.status)), request_error(record)
            ),
            overhead=self._overhead.child(record.route),
            end=self._ends.child(record.route, record.end_by, record.end_phase),
            refusal=self._refusals.child(record.code, record.model) if record.code else None,
            rejections=tuple((self._rejections.child(why), many) for why, many in record.rejected),
        )

    def tried(self, attempt: AttemptRecord, method: str) -> Tried:
        status = str(attempt.status) if attempt.status else ""
        error = attempt_error(attempt)
        return Tried(
            count=self._tries.child(attempt.backend_id, attempt.region, error),
            duration=self._client_duration.child(
                method, attempt.server_address, str(attempt.server_port), status, error
            ),
            first_byte=self._first_byte.child(attempt.backend_id, attempt.region),
        )

    def used(self, record: RequestRecord, provenance: Provenance) -> Used:
        who = (record.tenant_id, record.team_id, record.model)
        source = provenance.value
        return Used(
            input=self._tokens.child(*who, "input", source),
            cache_read=self._tokens.child(*who, "cache_read", source),
            cache_write=self._tokens.child(*who, "cache_write", source),
            output=self._tokens.child(*who, "output", source),
            charge=self._charges.child(*who, record.currency),
        )

    def book(self, records: Sequence[RequestRecord], ended: Ended, used: Used | None) -> None:
        """Requests that share these series; all but their tries."""
        ended.duration.observe_all([r.finished_us - r.started_us for r in records])
        ended.end.inc(len(records))
        if ended.refusal is not None:
            ended.refusal.inc(len(records))
        for count, candidates in ended.rejections:
            count.inc(candidates * len(records))
        self._admission.observe_all(
            [r.admitted_us - r.admit_started_us for r in records if r.admitted_us]
        )
        ended.overhead.observe_all([r.overhead_us for r in records if r.attempts])
        again = sum([len(r.attempts) - 1 for r in records if r.attempts])
        if again:
            self._book_more(records, again)
        if used is not None:
            _book_usage(records, used)

    def _book_more(self, records: Sequence[RequestRecord], again: int) -> None:
        """What was tried after the first: so many in all."""
        model = records[0].model
        hedged = [r.attempts[-1].beside for r in records if any(a.beside for a in r.attempts)]
        if again > len(hedged):
            self._retries.child(model).inc(again - len(hedged))
        for won in set(hedged):
            self._hedges.child(model, "true" if won else "false").inc(hedged.count(won))

    def _seconds(
        self, name: str, help_: str, labels: tuple[str, ...], bounds: tuple[int, ...]
    ) -> Histogram:
        return self._registry.histogram(
            Family(
                names=(name,),
                kind=HISTOGRAM,
                help=help_,
                unit="s",
                labels=labels,
                bounds=bounds,
                divisor=_MICROS,
            )
        )

    def _counter(
        self, name: str, help_: str, unit: str, labels: tuple[str, ...], divisor: int = 1
    ) -> Counter:
        family = Family(
            names=(name,), kind=COUNTER, help=help_, unit=unit, labels=labels, divisor=divisor
        )
        return self._registry.counter(family)

    def _declare_requests(self) -> None:
        self._duration = self._seconds(
            names.HTTP_SERVER_DURATION,
            "Time of a request, first byte in to last byte out.",
            (
                *(names.HTTP_METHOD, names.URL_SCHEME, names.HTTP_ROUTE),
                *(names.HTTP_STATUS, names.ERROR_TYPE),
            ),
            names.HTTP_US,
        )
        self._overhead = self._seconds(
            names.OVERHEAD,
            "The gateway's own part of a request's time.",
            (names.HTTP_ROUTE,),
            names.SMALL_US,
        )
        self._admission = self._seconds(
            names.ADMISSION, "Time to take limits and place holds.", (), names.SMALL_US
        ).child()
        self._ends = self._counter(
            names.REQUEST_ENDS,
            "How requests ended: by whom, and in which phase.",
            "{request}",
            (names.HTTP_ROUTE, names.END_BY, names.END_PHASE),
        )
        self._refusals = self._counter(
            names.REFUSALS, "Refused requests.", "{request}", (names.CODE, names.MODEL)
        )
        self._rejections = self._counter(
            names.REJECTIONS, "Candidates routing ruled out.", "{candidate}", (names.REASON,)
        )

    def _declare_usage(self) -> None:
        who = (names.TENANT, names.TEAM, names.MODEL)
        self._tokens = self._counter(
            names.TOKENS,
            "Tokens booked, by disjoint meter and by how sure the figure is.",
            "{token}",
            (*who, names.DIRECTION, names.PROVENANCE),
        )
        self._charges = self._counter(
            names.CHARGES,
            "Charges booked, in whole units of the currency; the ledger has the exact figure.",
            "",
            (*who, names.CURRENCY),
            _NANOS,
        )

    def _declare_attempts(self) -> None:
        self._tries = self._counter(
            names.BACKEND_ATTEMPTS,
            "Tries at backends.",
            "{attempt}",
            (names.BACKEND, names.BACKEND_REGION, names.ERROR_TYPE),
        )
        self._retries = self._counter(
            names.RETRIES, "Tries after one that failed.", "{attempt}", (names.MODEL,)
        )
        self._hedges = self._counter(
            names.HEDGES,
            "Tries beside one that was slow, and whether they answered first.",
            "{attempt}",
            (names.MODEL, names.HEDGE_WON),
        )
        self._client_duration = self._seconds(
            names.HTTP_CLIENT_DURATION,
            "Time of one try at a backend.",
            (
                *(names.HTTP_METHOD, names.SERVER_ADDRESS, names.SERVER_PORT),
                *(names.HTTP_STATUS, names.ERROR_TYPE),
            ),
            names.HTTP_US,
        )
        self._first_byte = self._seconds(
            names.BACKEND_FIRST_BYTE,
            "Time from dispatch to a backend's first byte.",
            (names.BACKEND, names.BACKEND_REGION),
            names.FIRST_TOKEN_US,
        )


def attempt_error(attempt: AttemptRecord) -> str:
    """`error.type` of one try: what is recorded, else a status of 400 or more, else nothing."""
    return attempt.error_type or (str(attempt.status) if attempt.status >= 400 else "")


def _book_usage(records: Sequence[RequestRecord], used: Used) -> None:
    meters = [r.meters for r in records]
    used.input.inc(sum([m.input for m in meters]))
    used.output.inc(sum([m.output for m in meters]))
    used.cache_read.inc(sum([m.cache_read for m in meters]))
    used.cache_write.inc(sum([m.cache_write_5m + m.cache_write_1h for m in meters]))
    used.charge.inc(sum([r.charge_picos // _PICOS_OF_A_NANO for r in records]))
