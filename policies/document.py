"""A policy as it is written: strict when submitted, lenient when stored.

`parse` refuses what it does not know and reports every problem at once. `load` reads what another
version stored: it never fails, and marks what it could not read, so that compiling can refuse
rather than forget a restriction.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from billing.money import parse_decimal
from policies.experiment import Experiment, experiment_of
from policies.fields import (
    FIELDS,
    PER_MILLION_DECIMALS,
    PICO_DECIMALS,
    SECTIONS,
)
from policies.match import Facets, facets_of
from policies.objectives import METRICS, PERCENTILE, WINDOW_S, Objective, Objectives, together
from policies.readers import SWITCH, FieldError, read_texts
from policies.team_hours import HourCeiling, HourCeilings

SCOPES: Final = ("tenant", "team", "key")

_BY_PATH: Final = {field.path: field for field in FIELDS}
_PATHS: Final = tuple(_BY_PATH)
# What may stand beside match.tags: it narrows, or only orders what is permitted (L11).
BESIDE_TAGS: Final = (
    "name",
    "scope",
    "match",
    "require",
    "slo",
    "cost",
    "prefer",
    "weights",
    "affinity",
    "priority",
)
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class PolicyDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One document. None means that it does not speak of the field; README.md has the meanings."""

    name: str
    scope_kind: str  # tenant | team | key
    scope_id: str
    models: tuple[str, ...] | None = None  # the models it applies to; None: every model
    tags: dict[str, tuple[str, ...]] | None = None  # each must be one of these
    hours: dict[str, Any] | None = None  # from, to, days; on the tenant's clock
    stream: bool | None = None
    input_tokens: dict[str, int] | None = None  # at_least, at_most
    residency: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] | None = None
    placements: tuple[str, ...] | None = None
    data_classes: tuple[str, ...] | None = None
    max_context: int | None = None  # tokens that a model must at least take
    ttft_p95_ms: int | None = None
    tpot_p95_ms: int | None = None
    total_p95_ms: int | None = None
    percentile: int | None = None  # of the three above, instead of the 95th
    window_s: int | None = None
    on_no_data: str | None = None  # allow | avoid | refuse
    on_breach: str | None = None
    max_per_request: str | None = None  # exact decimals, in the tenant's currency
    max_input_per_million: str | None = None
    max_output_per_million: str | None = None
    max_per_team_hour: str | None = None
    prefer: str | tuple[str, ...] | None = None
    weights: dict[str, int] | None = None  # by backend
    affinity: str | None = None  # off | prefix
    experiment: dict[str, Any] | None = None  # name, by, split, shadow
    hold: str | None = None  # full | sliced
    slice: int | None = None  # output tokens
    clamp: bool | None = None
    least_output: int | None = None
    default_output: int | None = None
    store_answers: bool | None = None
    keep_seconds: int | None = None
    on_exhausted: str | dict[str, str] | None = None  # refuse | {degrade_to: model}
    max_attempts: int | None = None
    hedge_after_ms: int | None = None
    hedge_percent: int | None = None  # of the requests and their cost; 0: none is hedged
    priority: int | None = None  # 1 to 9: whose turn comes first where a backend is full
    unreadable: tuple[str, ...] = ()  # paths that `load` could not read

    @property
    def facets(self) -> Facets | None:
        """What it asks of a request besides the model; None: nothing."""
        return facets_of(self.tags, self.hours, self.stream, self.input_tokens)

    @property
    def trial(self) -> Experiment | None:
        """Its experiment, with the scope that it speaks for."""
        if self.experiment is None:
            return None
        return experiment_of(self.experiment, self.scope_kind, self.scope_id)

    @property
    def objectives(self) -> Objectives | None:
        """What it demands of speed; None: nothing."""
        written = zip(METRICS, (self.ttft_p95_ms, self.tpot_p95_ms, self.total_p95_ms), strict=True)
        found = tuple(
            Objective(metric, ms * 1000, self.percentile or PERCENTILE, self.window_s or WINDOW_S)
            for metric, ms in written
            if ms is not None
        )
        return together(found, ()) or None

    @property
    def hour_ceilings(self) -> HourCeilings | None:
        """What it lets a team spend in an hour; None: it does not say."""
        if self.max_per_team_hour is None:
            return None
        return (HourCeiling(self.scope_kind, self.scope_id, picos_of(self.max_per_team_hour)),)


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with a document: where, what, and what to write instead."""

    path: str  # `require.residency`; empty for the document as a whole
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path or 'the document'} {self.message}; {self.remedy}"


class DocumentError(ValueError):
    """A document that is refused. `path`, `message` and `remedy` are the first problem's."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(". ".join(map(str, problems)))
        self.problems = problems
        self.path = problems[0].path
        self.message = problems[0].message
        self.remedy = problems[0].remedy


def parse(data: bytes | Mapping[str, Any]) -> PolicyDocument:
    """A document as submitted: JSON, or the mapping that JSON or YAML gave.

    DocumentError carries every problem found. Nothing unknown passes.
    """
    problems: list[Problem] = []
    written = _mapping(data, problems)
    if problems:
        raise DocumentError(tuple(problems))
    values = _read(written, problems)
    problems += [
        Problem(required, "is missing", f"add {required}")
        for required in ("name", "scope")
        if written.get(required) is None
    ]
    problems += _at_odds(values)
    if problems:
        raise DocumentError(tuple(problems))
    return PolicyDocument(**values)


def load(data: bytes) -> PolicyDocument:
    """A document as stored, perhaps by another version. Never fails; see `unreadable`."""
    problems: list[Problem] = []
    written = _mapping(data, problems)
    unnamed = {"name": "unreadable", "scope_kind": "tenant", "scope_id": ""}
    values: dict[str, Any] = unnamed | _read(written, problems)
    return PolicyDocument(**values, unreadable=tuple(problem.path for problem in problems))


def canonical(document: PolicyDocument) -> bytes:
    """The same document, byte for byte, however it was written: sorted JSON of what is set."""
    tree: dict[str, Any] = {"scope": {document.scope_kind: document.scope_id}}
    for field in FIELDS:
        value = getattr(document, field.attribute)
        if value is None:
            continue
        if field.read is SWITCH:
            value = "on" if value else "off"
        section, _, leaf = field.path.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[leaf] = value
    return _ENCODER.encode(tree)


def picos_of(amount: str) -> int:
    """An amount of a document in picos, exactly."""
    return parse_decimal(amount, PICO_DECIMALS)


def picos_per_token_of(per_million: str) -> int:
    """An amount per million tokens in picos per token, exactly."""
    return parse_decimal(per_million, PER_MILLION_DECIMALS)


def _mapping(data: bytes | Mapping[str, Any], problems: list[Problem]) -> Mapping[str, Any]:
    if isinstance(data, bytes):
        try:
            data = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problems.append(Problem("", f"is not JSON: {error}", "write a JSON object"))
            return {}
    if not isinstance(data, Mapping):
        problems.append(Problem("", "is not an object", "write name, scope and what is required"))
        return {}
    return data


def _read(written: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path, value in _leaves(written, problems):
        try:
            if path != "scope" and path not in _BY_PATH:
                raise _unknown(path)
            if value is not None:
                values |= _value(path, value)
        except FieldError as error:
            problems.append(Problem(path, error.message, error.remedy))
    return values


def _value(path: str, value: Any) -> dict[str, Any]:
    if path == "scope":
        kind, scope_id = _scope(value)
        return {"scope_kind": kind, "scope_id": scope_id}
    field = _BY_PATH[path]
    return {field.attribute: field.read(value)}


def _leaves(written: Mapping[str, Any], problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    """Every path of the document with its value; sections are opened, one level deep."""
    for name, value in written.items():
        if name not in SECTIONS or value is None:
            yield str(name), value
        elif isinstance(value, Mapping):
            for inner, leaf in value.items():
                yield f"{name}.{inner}", leaf
        else:
            known = ", ".join(path.split(".")[1] for path in _PATHS if path.startswith(f"{name}."))
            problems.append(Problem(name, "is not a section", f"write an object with {known}"))


def _scope(value: Any) -> tuple[str, str]:
    if isinstance(value, Mapping) and len(value) == 1:
        ((kind, scope_id),) = value.items()
        if kind in SCOPES:
            return str(kind), read_texts([scope_id])[0]
    raise FieldError("is not one scope", "write {tenant: id}, {team: id} or {key: id}")


def _unknown(path: str) -> FieldError:
    if path in SECTIONS:
        return FieldError("is empty", "fill it or leave it out")
    near = difflib.get_close_matches(path, _PATHS, n=1, cutoff=0.7)
    leaf = path.rpartition(".")[2]
    meant = near or [known for known in _PATHS if known.rpartition(".")[2] == leaf]
    return FieldError("is not a field", f"did you mean {meant[0]}?" if meant else "leave it out")


def _at_odds(values: Mapping[str, Any]) -> list[Problem]:
    problems = []
    least, default = values.get("least_output"), values.get("default_output")
    if least is not None and default is not None and least > default:
        problems.append(
            Problem(
                "budget.least_output",
                f"is {least}, above budget.default_output, {default}",
                "lower it, or raise the default",
            )
        )
    problems += _odd_experiment(values)
    if "hedge_after_ms" in values and values.get("max_attempts") == 1:
        problems.append(
            Problem(
                "retries.hedge_after_ms",
                "asks for a second attempt, and retries.max_attempts allows one",
                "raise retries.max_attempts, or leave it out",
            )
        )
    if not {"ttft_p95_ms", "tpot_p95_ms", "total_p95_ms"} & set(values):
        problems += [
            Problem(f"slo.{name}", "speaks of no objective", "add slo.ttft_p95_ms or another")
            for name in ("percentile", "window_s")
            if name in values
        ]
    if values.get("tags") is not None:
        problems += [
            Problem(
                field.path,
                "cannot depend on tags, which are what the client claims",
                "write it in a document without match.tags",
            )
            for field in FIELDS
            if field.attribute in values and field.path.split(".")[0] not in BESIDE_TAGS
        ]
    return problems


def _odd_experiment(values: Mapping[str, Any]) -> list[Problem]:
    experiment, models = values.get("experiment"), values.get("models")
    if experiment is None:
        return []
    problems = []
    if models is None:
        problems.append(
            Problem("experiment", "needs match.models", "name the model that it is about there")
        )
    shadow = experiment.get("shadow")
    if shadow is not None and values.get("scope_kind") == "key":
        problems.append(
            Problem(
                "experiment.shadow",
                "cannot stand in a key's document: whoever asks never pays for a shadow",
                "write it in a document of the key's team or tenant",
            )
        )
    if shadow is not None and models == (shadow["model"],) and "split" not in experiment:
        problems.append(
            Problem(
                "experiment.shadow.model",
                "is the model that serves these requests anyway",
                "name another one",
            )
        )
    return problems
