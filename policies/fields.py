"""The fields of a policy document: where each is written, where it is kept, how it is read."""

from typing import Final, NamedTuple

from policies import match, readers
from policies.experiment import EXPERIMENT
from policies.objectives import WINDOWS_S
from policies.readers import Reader, amount, integer, number_of, one_of

PICO_DECIMALS: Final = 12
PER_MILLION_DECIMALS: Final = 6  # amount per million x 10^6 = picos per token, exactly

_MS: Final = integer(1, 3_600_000)
_TOKENS: Final = integer(1, readers.MAX_TOKENS)
HIGHEST_PRIORITY: Final = 9
_LEAST_SLICE: Final = 16  # tokens; a smaller one would ask the store more than it streams


class Field(NamedTuple):
    """One field. `path` is `section.name`, or the name alone."""

    path: str
    attribute: str
    read: Reader


FIELDS: Final = (
    Field("name", "name", readers.NAME),
    Field("match.models", "models", readers.TEXTS),
    Field("match.tags", "tags", match.TAGS),
    Field("match.hours", "hours", match.HOURS),
    Field("match.stream", "stream", match.STREAM),
    Field("match.input_tokens", "input_tokens", match.INPUT_TOKENS),
    Field("require.residency", "residency", readers.JURISDICTIONS),
    Field("require.capabilities", "capabilities", readers.CAPABILITIES),
    Field("require.placements", "placements", readers.PLACES),
    Field("require.data_classes", "data_classes", readers.DATA_CLASSES),
    Field("require.max_context", "max_context", _TOKENS),
    Field("slo.ttft_p95_ms", "ttft_p95_ms", _MS),
    Field("slo.tpot_p95_ms", "tpot_p95_ms", _MS),
    Field("slo.total_p95_ms", "total_p95_ms", _MS),
    Field("slo.percentile", "percentile", integer(50, 99)),
    Field("slo.window_s", "window_s", number_of(*WINDOWS_S)),
    Field("slo.on_no_data", "on_no_data", one_of("allow", "avoid", "refuse")),
    Field("slo.on_breach", "on_breach", one_of("prefer_faster", "shed", "refuse")),
    Field("cost.max_per_request", "max_per_request", amount(PICO_DECIMALS)),
    Field("cost.max_input_per_million", "max_input_per_million", amount(PER_MILLION_DECIMALS)),
    Field("cost.max_output_per_million", "max_output_per_million", amount(PER_MILLION_DECIMALS)),
    Field("cost.max_per_team_hour", "max_per_team_hour", amount(PICO_DECIMALS)),
    Field("prefer", "prefer", readers.PREFER),
    Field("weights", "weights", readers.WEIGHTS),
    Field("affinity", "affinity", one_of("off", "prefix")),
    Field("experiment", "experiment", EXPERIMENT),
    Field("budget.hold", "hold", one_of("full", "sliced")),
    Field("budget.slice", "slice", integer(_LEAST_SLICE, readers.MAX_TOKENS)),
    Field("budget.clamp", "clamp", readers.SWITCH),
    Field("budget.least_output", "least_output", _TOKENS),
    Field("budget.default_output", "default_output", _TOKENS),
    Field("idempotency.store_answers", "store_answers", readers.SWITCH),
    Field("idempotency.keep_seconds", "keep_seconds", integer(1, 86_400)),
    Field("budget.on_exhausted", "on_exhausted", readers.EXHAUSTED),
    Field("retries.max_attempts", "max_attempts", integer(1, readers.MAX_ATTEMPTS)),
    Field("retries.hedge_after_ms", "hedge_after_ms", _MS),
    Field("retries.hedge_percent", "hedge_percent", integer(0, 100)),
    Field("priority", "priority", integer(1, HIGHEST_PRIORITY)),
)

SECTIONS: Final = frozenset(field.path.split(".")[0] for field in FIELDS if "." in field.path)
