"""Books a finished request under the GenAI conventions: as a client of backends, and as a server.

Client figures carry what was asked of the backend; server figures what our client asked of us.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from billing.meters import Provenance
from gateway.telemetry import names
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
from gateway.telemetry.names import Convention
from gateway.telemetry.record import RequestRecord, begun_us

_MICROS: Final = 1_000_000
_CLIENT: Final = (
    *(names.OPERATION, names.PROVIDER, names.REQUEST_MODEL),
    *(names.SERVER_ADDRESS, names.SERVER_PORT),
)
_SERVER: Final = (
    *(names.OPERATION, names.PROVIDER, names.REQUEST_MODEL, names.RESPONSE_MODEL),
    names.ERROR_TYPE,
)
_KNOWN: Final = frozenset({Provenance.REPORTED, Provenance.COUNTED})
_TEXT: Final = "text"
_UNKNOWN: Final = "unknown"


def request_error(record: RequestRecord) -> str:
    """`error.type` of the request as a whole: what is recorded, else a 5xx status, else nothing."""
    return record.error_type or (str(record.status) if record.status >= 500 else "")


class _Usage(msgspec.Struct, frozen=True, gc=False):
    """The newer usage counters of one kind of request; cost nothing where nothing was used."""

    input: Count
    output: Count
    cache_read: Count
    cache_write: Count
    reasoning: Count


class Operated(msgspec.Struct, frozen=True, gc=False):
    """A request that reached a backend."""

    duration: Distribution
    first_chunk: Distribution
    chunk: Distribution
    released_input: Distribution
    released_output: Distribution
    latest_input: Distribution
    latest_output: Distribution
    usage: _Usage
    usage_unknown: _Usage
    served: Distribution
    first_token: Distribution
    output_token: Distribution


class GenAi:
    """The GenAI families of one process."""

    def __init__(self, registry: Registry, convention: Convention) -> None:
        self._registry = registry
        self._convention = convention
        self._declare_client()
        self._declare_usage()
        self._declare_server()

    def _names(self, released: str, latest: str) -> tuple[str, ...]:
        match self._convention:
            case Convention.RELEASED:
                shown = {released}
            case Convention.LATEST:
                shown = {latest}
            case _:
                shown = {released, latest}
        return tuple(sorted(shown - {""}))

    def _seconds(
        self,
        released: str,
        latest: str,
        help_: str,
        labels: tuple[str, ...],
        bounds: tuple[int, ...],
    ) -> Histogram:
        return self._registry.histogram(
            Family(
                names=self._names(released, latest),
                kind=HISTOGRAM,
                help=help_,
                unit="s",
                labels=labels,
                bounds=bounds,
                divisor=_MICROS,
            )
        )

    def _tokens(self, released: str, latest: str, help_: str, labels: tuple[str, ...]) -> Histogram:
        return self._registry.histogram(
            Family(
                names=self._names(released, latest),
                kind=HISTOGRAM,
                help=help_,
                unit="{token}",
                labels=labels,
                bounds=names.TOKEN_COUNTS,
            )
        )

    def _usage_counter(self, latest: str, help_: str) -> Counter:
        labels = (*_CLIENT, names.TOKEN_MODALITY)
        family = Family(
            names=self._names("", latest), kind=COUNTER, help=help_, unit="{token}", labels=labels
        )
        return self._registry.counter(family)

    def _declare_client(self) -> None:
        with_error = (*_CLIENT, names.ERROR_TYPE)
        duration, bounds = names.CLIENT_OPERATION_DURATION, names.DURATION_US
        text = "Time of an operation at its backend, retries included."
        self._inference = self._seconds(
            duration, names.INFERENCE_DURATION, text, with_error, bounds
        )
        self._embeddings = self._seconds(
            duration, names.EMBEDDINGS_DURATION, text, with_error, bounds
        )
        self._first_chunk = self._seconds(
            names.CLIENT_FIRST_CHUNK,
            names.INFERENCE_FIRST_CHUNK,
            "Time from the request to the backend to its first chunk; streams only.",
            _CLIENT,
            bounds,
        )
        self._chunk = self._seconds(
            names.CLIENT_CHUNK,
            names.INFERENCE_CHUNK,
            "Time between output chunks: a request's mean, once for each chunk after the first.",
            _CLIENT,
            bounds,
        )

    def _declare_usage(self) -> None:
        self._released = self._tokens(
            names.CLIENT_TOKEN_USAGE, "", "Tokens a request used.", (*_CLIENT, names.TOKEN_TYPE)
        )
        self._latest_input = self._tokens(
            "", names.INFERENCE_INPUT, "Prompt tokens of a request, cached ones included.", _CLIENT
        )
        self._latest_output = self._tokens(
            "",
            names.INFERENCE_OUTPUT,
            "Generated tokens of a request, reasoning included.",
            _CLIENT,
        )
        self._embedded = self._tokens(
            "", names.EMBEDDINGS_INPUT, "Tokens of an embeddings request.", _CLIENT
        )
        self._usage = (
            self._usage_counter(names.INFERENCE_USAGE_INPUT, "Prompt tokens used."),
            self._usage_counter(names.INFERENCE_USAGE_OUTPUT, "Generated tokens used."),
            self._usage_counter(names.INFERENCE_USAGE_CACHE_READ, "Prompt tokens read from cache."),
            self._usage_counter(
                names.INFERENCE_USAGE_CACHE_WRITE, "Prompt tokens written to cache."
            ),
            self._usage_counter(names.INFERENCE_USAGE_REASONING, "Reasoning tokens used."),
        )

    def _declare_server(self) -> None:
        duration, first = names.SERVER_DURATION, names.SERVER_FIRST_TOKEN
        self._served = self._seconds(
            duration, duration, "Time to the last byte for our client.", _SERVER, names.DURATION_US
        )
        self._first_token = self._seconds(
            first, first, "Time to the first token for our client.", _SERVER, names.FIRST_TOKEN_US
        )
        self._output_token = self._seconds(
            names.SERVER_OUTPUT_TOKEN,
            names.SERVER_OUTPUT_TOKEN,
            "Time per output token after the first, for our client.",
            _SERVER,
            names.OUTPUT_TOKEN_US,
        )

    def operated(self, record: RequestRecord) -> Operated | None:
        """The series of requests like this one. None for one that reached no backend:
        `http.server.*` has those.
        """
        if not record.attempts or not record.operation:
            return None
        error = request_error(record)
        operation = names.OPERATIONS.get(record.operation, names.OPERATION_OTHER)
        answered = record.attempts[-1]
        client = (
            *(operation, record.provider, record.upstream_model),
            *(answered.server_address, str(answered.server_port)),
        )
        server = (operation, record.provider, record.model, record.upstream_model, error)
        embeds = record.operation == "embeddings"
        duration = self._embeddings if embeds else self._inference
        return Operated(
            duration=duration.child(*client, error),
            first_chunk=self._first_chunk.child(*client),
            chunk=self._chunk.child(*client),
            released_input=self._released.child(*client, "input"),
            released_output=self._released.child(*client, "output"),
            latest_input=(self._embedded if embeds else self._latest_input).child(*client),
            latest_output=self._latest_output.child(*client),
            usage=_Usage(*(counter.child(*client, _TEXT) for counter in self._usage)),
            usage_unknown=_Usage(*(counter.child(*client, _UNKNOWN) for counter in self._usage)),
            served=self._served.child(*server),
            first_token=self._first_token.child(*server),
            output_token=self._output_token.child(*server),
        )


def book(records: Sequence[RequestRecord], series: Operated) -> None:
    """Requests that share these series, their provenance and their operation."""
    _book_times(series, records)
    streams = [r for r in records if r.stream and r.ttft_us >= 0]
    if streams:
        _book_streams(series, streams)
    known = records[0].provenance in _KNOWN
    if records[0].operation == "embeddings":
        if known:
            tokens = [r.meters.all_input for r in records]
            series.released_input.observe_all(tokens)
            series.latest_input.observe_all(tokens)
    elif known:
        _book_tokens(series, records)


def _book_times(series: Operated, records: Sequence[RequestRecord]) -> None:
    series.duration.observe_all(
        [r.attempts[-1].finished_us - begun_us(r.attempts) for r in records]
    )
    series.served.observe_all([r.finished_us - r.started_us for r in records])


def _book_streams(series: Operated, streams: Sequence[RequestRecord]) -> None:
    series.first_token.observe_all([r.ttft_us for r in streams])
    for record in streams:
        last = record.attempts[-1]
        streaming_us = record.finished_us - record.started_us - record.ttft_us
        if record.meters.output > 1:
            series.output_token.observe(streaming_us // (record.meters.output - 1))
        if last.first_byte_us:
            series.first_chunk.observe(last.first_byte_us - begun_us(record.attempts))
        if record.chunks > 1:
            series.chunk.observe_times(streaming_us // (record.chunks - 1), record.chunks - 1)


def _book_tokens(series: Operated, records: Sequence[RequestRecord]) -> None:
    """Of unknown usage the released histogram wants nothing, and the newer counters stand at 0."""
    meters, usage = [r.meters for r in records], series.usage
    read, generated = [m.all_input for m in meters], [m.output for m in meters]
    usage.input.inc(sum(read))
    usage.output.inc(sum(generated))
    usage.cache_read.inc(sum([m.cache_read for m in meters]))
    usage.cache_write.inc(sum([m.cache_write_5m + m.cache_write_1h for m in meters]))
    usage.reasoning.inc(sum([r.reasoning for r in records]))
    for tokens, histograms in (
        (read, (series.released_input, series.latest_input)),
        (generated, (series.released_output, series.latest_output)),
    ):
        for histogram in histograms:
            histogram.observe_all(tokens)
