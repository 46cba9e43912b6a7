"""Every span, attribute and metric name, and the prescribed buckets, in one place.

GenAI names exist in two generations: those of the last release of the conventions, and those of
the repository they moved to. Metrics can be shown under either or both; spans use the released
names with the newer usage attributes added. `meterhouse.*` is ours, where no convention exists.
"""

from enum import StrEnum
from typing import Final


class ErrorType(StrEnum):
    """The values of `error.type` besides an HTTP status; few, because it is a label."""

    TIMEOUT = "timeout"
    CLIENT_DISCONNECT = "client_disconnect"
    CONNECT_FAILED = "connect_failed"
    UPSTREAM_RESET = "upstream_reset"
    STREAM_TRUNCATED = "stream_truncated"
    MALFORMED = "malformed_response"
    BUDGET_EXCEEDED = "budget_exceeded"
    RATE_LIMITED = "rate_limited"
    OTHER = "_OTHER"

    __hash__ = str.__hash__  # as equality; the library's own is a call into Python


class Convention(StrEnum):
    """Under which generation of the GenAI metric names the figures are shown."""

    RELEASED = "released"
    LATEST = "latest"
    BOTH = "both"


OPERATIONS: Final = {
    "chat": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
OPERATION_OTHER: Final = "_OTHER"

# Attributes of the conventions
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_CHOICES: Final = "gen_ai.request.choice.count"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK_SECONDS: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - an attribute name, not a secret
TOKEN_MODALITY: Final = "gen_ai.token.modality"  # noqa: S105 - an attribute name, not a secret
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
HTTP_RESEND: Final = "http.request.resend_count"
CONNECTION_STATE: Final = "http.connection.state"
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"
INTEGER_ATTRIBUTES: Final = frozenset({SERVER_PORT, HTTP_STATUS})

# Attributes of our own
REQUEST_ID: Final = "meterhouse.request.id"
TENANT: Final = "meterhouse.tenant.id"
TEAM: Final = "meterhouse.team.id"
KEY: Final = "meterhouse.key.id"
MODEL: Final = "meterhouse.model"
BACKEND: Final = "meterhouse.backend.id"
BACKEND_REGION: Final = "meterhouse.backend.region"
UPSTREAM_REQUEST_ID: Final = "meterhouse.upstream.request.id"
CODE: Final = "meterhouse.refusal.code"
ATTEMPTS: Final = "meterhouse.attempts"
REJECTED: Final = "meterhouse.candidates.rejected"
REASON: Final = "meterhouse.reason"
PROVENANCE: Final = "meterhouse.usage.provenance"
DIRECTION: Final = "meterhouse.usage.type"
CURRENCY: Final = "meterhouse.currency"
CHARGE: Final = "meterhouse.charge"
OVERHEAD_SECONDS: Final = "meterhouse.overhead"
END_BY: Final = "meterhouse.end.by"
END_PHASE: Final = "meterhouse.end.phase"
HEDGE_WON: Final = "meterhouse.hedge.won"
KIND: Final = "meterhouse.kind"
OUTCOME: Final = "meterhouse.outcome"
PROCESS: Final = "meterhouse.process"
VERSION: Final = "meterhouse.version"

# Metrics of the conventions, released and latest
CLIENT_TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 - a metric name
CLIENT_OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
CLIENT_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
CLIENT_CHUNK: Final = "gen_ai.client.operation.time_per_output_chunk"
INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
INFERENCE_FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
INFERENCE_CHUNK: Final = "gen_ai.client.inference.time_per_output_chunk"
INFERENCE_INPUT: Final = "gen_ai.client.inference.operation.input_tokens"
INFERENCE_OUTPUT: Final = "gen_ai.client.inference.operation.output_tokens"
INFERENCE_USAGE_INPUT: Final = "gen_ai.client.inference.usage.input_tokens"
INFERENCE_USAGE_OUTPUT: Final = "gen_ai.client.inference.usage.output_tokens"
INFERENCE_USAGE_CACHE_READ: Final = "gen_ai.client.inference.usage.cache_read.input_tokens"
INFERENCE_USAGE_CACHE_WRITE: Final = "gen_ai.client.inference.usage.cache_write.input_tokens"
INFERENCE_USAGE_REASONING: Final = "gen_ai.client.inference.usage.reasoning.output_tokens"
EMBEDDINGS_DURATION: Final = "gen_ai.client.embeddings.duration"
EMBEDDINGS_INPUT: Final = "gen_ai.client.embeddings.operation.input_tokens"
SERVER_DURATION: Final = "gen_ai.server.request.duration"
SERVER_FIRST_TOKEN: Final = "gen_ai.server.time_to_first_token"  # noqa: S105 - a metric name
SERVER_OUTPUT_TOKEN: Final = "gen_ai.server.time_per_output_token"  # noqa: S105 - a metric name
HTTP_SERVER_DURATION: Final = "http.server.request.duration"
HTTP_CLIENT_DURATION: Final = "http.client.request.duration"
HTTP_SERVER_ACTIVE: Final = "http.server.active_requests"
HTTP_CLIENT_CONNECTIONS: Final = "http.client.open_connections"
PROCESS_MEMORY: Final = "process.memory.usage"

# Metrics of our own
OVERHEAD: Final = "meterhouse.overhead.duration"
ADMISSION: Final = "meterhouse.admission.duration"
REQUEST_ENDS: Final = "meterhouse.request.ends"
REFUSALS: Final = "meterhouse.refusals"
ADMIN_REFUSALS: Final = "meterhouse.admin.refusals"
REJECTIONS: Final = "meterhouse.candidates.rejected"
BACKEND_ATTEMPTS: Final = "meterhouse.backend.attempts"
BACKEND_FIRST_BYTE: Final = "meterhouse.backend.time_to_first_byte"
OUTAGE_ADMISSIONS: Final = "meterhouse.outage.admissions"
DECISIONS_UNRECORDED: Final = "meterhouse.decisions.unrecorded"
RETRIES: Final = "meterhouse.retries"
HEDGES: Final = "meterhouse.hedges"
SHADOWS: Final = "meterhouse.shadows"
QUEUE_WAIT: Final = "meterhouse.queue.wait.duration"
QUEUE_LENGTH: Final = "meterhouse.queue.length"
QUEUE_SHED: Final = "meterhouse.queue.shed"
SLOTS: Final = "meterhouse.backend.slots"
TOKENS: Final = "meterhouse.usage.tokens"
CHARGES: Final = "meterhouse.usage.charge"
LEDGER_FAULTS: Final = "meterhouse.ledger.faults"
LEDGER_CHECKED: Final = "meterhouse.ledger.checked"
LOOP_LAG: Final = "meterhouse.event_loop.lag"
TELEMETRY_DROPPED: Final = "meterhouse.telemetry.dropped"
BUILD: Final = "meterhouse.build.info"

# Spans
ADMISSION_SPAN: Final = "admission"
SCOPE: Final = "meterhouse"

# Buckets. Seconds are kept as whole microseconds, so that an edge is exact.
DURATION_US: Final = tuple(10_000 << n for n in range(14))  # 0.01 ... 81.92 s
TOKEN_COUNTS: Final = tuple(4**n for n in range(14))  # 1 ... 67108864
FIRST_TOKEN_US: Final = (
    *(1_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 250_000, 500_000, 750_000),
    *(1_000_000, 2_500_000, 5_000_000, 7_500_000, 10_000_000),
)
OUTPUT_TOKEN_US: Final = (
    *(10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 400_000, 500_000),
    *(750_000, 1_000_000, 2_500_000),
)
# The prescribed HTTP edges end at 10 s, which says nothing of a stream; ours go on from there.
HTTP_US: Final = (
    *(5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000),
    *(1_000_000, 2_500_000, 5_000_000, 7_500_000, 10_000_000),
    *(20_000_000, 40_000_000, 80_000_000, 160_000_000, 320_000_000, 640_000_000),
)
SMALL_US: Final = (
    *(50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 25_000, 50_000),
    *(100_000, 250_000, 500_000, 1_000_000, 5_000_000),
)
