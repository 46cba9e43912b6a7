"""What the data plane hands over once a request is over: sizes, times, names; no content (L12).

All times of one record are microseconds on one scale: the wall clock read when the request
arrived, plus differences of the monotonic clock. So no duration is ever negative.
"""

from typing import Final

import msgspec

from billing.meters import Meters, Provenance

NOTHING_USED: Final = Meters()


class TraceIds(msgspec.Struct, frozen=True, gc=False):
    """One request's place in a trace, known before anything is sent. Ids are integers, 0 = none.

    The spans of a request have consecutive ids, so none of them costs a random number.
    """

    trace_id: int  # 128 bits
    span_id: int  # 64 bits: the server span
    parent_span_id: int  # the caller's span, when it sent a traceparent
    sampled: bool  # decided here; the caller's own flag is not obeyed

    @property
    def trace_hex(self) -> str:
        return self.trace_id.to_bytes(16, "big").hex()

    @property
    def admission_span_id(self) -> int:
        return self.span_id + 1

    @property
    def client_span_id(self) -> int:
        """The span of the logical operation, all tries included."""
        return self.span_id + 2

    def attempt_span_id(self, attempt: int) -> int:
        """The span id of attempt 0, 1, ...; what a trusted backend sees as its parent."""
        return self.span_id + 3 + attempt

    def traceparent(self, attempt: int) -> bytes:
        """The W3C header value for one attempt; send it to trusted backends only."""
        return b"00-%032x-%016x-0%d" % (self.trace_id, self.attempt_span_id(attempt), self.sampled)


class AttemptRecord(msgspec.Struct, frozen=True, gc=False):
    """One try at one backend. The answer to the client came from the last one, if from any; of two
    that ran side by side the one that lost stands before it.
    """

    backend_id: str
    region: str
    server_address: str
    server_port: int
    started_us: int
    finished_us: int
    first_byte_us: int = 0  # 0: none came
    status: int = 0  # the backend's HTTP status; 0: no answer
    error_type: str = ""  # one of names.ErrorType, or "" when it went well
    upstream_request_id: str = ""
    number: int = 0  # in the order in which they began
    beside: bool = False  # it was begun while another one was waited for


NOWHERE: Final = AttemptRecord("", "", "", 0, 0, 0)  # stands for the try of a request without one


def begun_us(attempts: tuple[AttemptRecord, ...]) -> int:
    """When the first of them began."""
    if len(attempts) == 1:
        return attempts[0].started_us
    return min([attempt.started_us for attempt in attempts])


class RequestRecord(msgspec.Struct, frozen=True, gc=False):
    """One request from its first byte to its settlement.

    Whoever makes one for every request gives the fields by position: named, they would be packed
    into a dictionary first, which costs several times as much as the record.

    `model` is a name from the catalogue, or empty when the client asked for something else:
    what a client types must never become a label. `route` is the template of the path.
    """

    request_id: str
    trace: TraceIds
    route: str
    status: int  # what the client saw; 499 when it hung up first
    started_us: int
    finished_us: int
    operation: str = ""  # chat | completions | embeddings; empty where no model is involved
    model: str = ""
    upstream_model: str = ""  # of the attempt that answered
    provider: str = ""  # gen_ai.provider.name of the attempt that answered
    tenant_id: str = ""
    team_id: str = ""
    key_id: str = ""
    code: str = ""  # the refusal's code, or ""
    error_type: str = ""  # one of names.ErrorType; "" when it went well, or when the status says it
    stream: bool = False
    end_by: str = ""  # client | upstream | gateway | limit
    end_phase: str = ""  # connect | ttfb | stream | done
    overhead_us: int = 0  # our own time: arrival to dispatch, plus the relay of the answer
    admit_started_us: int = 0  # 0: admission was not reached
    admitted_us: int = 0
    ttft_us: int = -1  # arrival to the first byte of content for the client; -1: none
    chunks: int = 0  # events of content relayed, streams only
    attempts: tuple[AttemptRecord, ...] = ()
    meters: Meters = NOTHING_USED
    reasoning: int = 0  # inside meters.output
    provenance: Provenance | None = None  # None: no usage is known
    charge_picos: int = 0
    currency: str = ""
    finish_reasons: tuple[str, ...] = ()
    max_tokens: int = 0  # the grant sent to the backend; 0: none
    choices: int = 1
    rejected: tuple[tuple[str, int], ...] = ()  # why candidates were not eligible, and how many
    method: str = "POST"
    response_id: str = ""
    response_model: str = ""
