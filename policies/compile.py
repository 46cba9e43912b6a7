"""The documents of tenant, teams and key become one EffectivePolicy. The tightest wins.

Permissions intersect, requirements unite, ceilings take the minimum, and for choices the nearest
scope wins (README.md has the table). No document can widen what another one allows (L11).
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from policies import residency
from policies.document import PolicyDocument, picos_of, picos_per_token_of
from policies.experiment import Experiment
from policies.fields import HIGHEST_PRIORITY
from policies.objectives import Objectives, together
from policies.team_hours import HourCeilings
from policies.team_hours import together as least_of_each

Scoped = tuple[str, int, str, PolicyDocument]  # scope kind, depth in the tree, name, document

_KINDS: Final = {"tenant": 0, "team": 1, "key": 2}

# Sections that only choose among what is permitted: what another version wrote there may be missed.
_HARMLESS: Final = frozenset(
    ("name", "slo", "prefer", "budget", "retries", "experiment", "priority", "weights", "affinity")
)


class EffectivePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything policies say about one key and one model, ready for the hot path.

    None means that no document speaks of it. Money is picos, time is what its name says.
    """

    residency: frozenset[str] | None = None  # expanded; an empty set permits nothing
    capabilities: frozenset[str] = frozenset()
    placements: frozenset[str] | None = None
    data_classes: frozenset[str] = frozenset()  # a backend must be cleared for all of them
    least_context: int | None = None  # tokens
    objectives: Objectives = ()
    on_no_data: str = "avoid"  # allow | avoid | refuse
    on_breach: str = "prefer_faster"  # prefer_faster | shed | refuse
    max_per_request_picos: int | None = None
    max_input_picos_per_token: int | None = None
    max_output_picos_per_token: int | None = None
    hour_ceilings: HourCeilings = ()  # on what teams of the path spend in an hour
    prefer: str | tuple[str, ...] = "cheapest"  # cheapest | fastest | balanced | weighted | ...
    weights: dict[str, int] = {}  # by backend, among equals, instead of their targets'
    affinity: str = "off"  # prefix: among equals, prompts that begin alike go to one backend
    experiment: Experiment | None = None
    hold: str = "full"  # full: the worst case at once | sliced: the input and a slice at a time
    slice: int = 256  # output tokens per choice
    clamp: bool = True
    least_output: int = 64  # tokens under which an answer is of no use
    default_output: int = 1024  # tokens held for when the client names no max_tokens
    store_answers: bool = False  # under an idempotency key; they hold content
    keep_seconds: int = 3600  # how long such an answer is kept
    degrade_to: str | None = None  # tried when no budget covers the model asked for
    max_attempts: int = 3
    hedge_after_ms: int | None = None  # without a first token; None: never
    hedge_percent: int = 5  # of the requests that may be hedged, and of their expected cost
    priority: int = HIGHEST_PRIORITY  # the lower, the later its turn comes at a full backend
    # field -> the document that made it; several names with commas where only all of them did
    sources: dict[str, str] = msgspec.field(default_factory=dict)


DEFAULT: Final = EffectivePolicy()


class _Rule(msgspec.Struct, frozen=True):
    """How one field of a document reaches the policy."""

    field: str  # of EffectivePolicy
    written: str  # of PolicyDocument
    read: Callable[[Any], Any]
    merge: Callable[[Any, Any], Any]


def _same(value: Any) -> Any:
    return value


def _both(outer: frozenset[str], inner: frozenset[str]) -> frozenset[str]:
    return outer & inner


def _either(outer: frozenset[str], inner: frozenset[str]) -> frozenset[str]:
    return outer | inner


def _nearest(_outer: Any, inner: Any) -> Any:
    return inner


def _strictest(*mildest_first: str) -> Callable[[str, str], str]:
    def strictest(outer: str, inner: str) -> str:
        return max(outer, inner, key=mildest_first.index)

    return strictest


def _all(outer: bool, inner: bool) -> bool:
    return outer and inner


def _fullest(outer: str, inner: str) -> str:
    return "full" if "full" in (outer, inner) else inner


def _cheaper_model(on_exhausted: str | dict[str, str]) -> str | None:
    return None if isinstance(on_exhausted, str) else on_exhausted["degrade_to"]


def _nearest_if_any(outer: str | None, inner: str | None) -> str | None:
    """A scope that refuses refuses for those below it, too."""
    return None if None in (outer, inner) else inner


_RULES: Final = (
    _Rule("residency", "residency", residency.expand, _both),
    _Rule("capabilities", "capabilities", frozenset, _either),
    _Rule("placements", "placements", frozenset, _both),
    _Rule("data_classes", "data_classes", frozenset, _either),
    _Rule("least_context", "max_context", _same, max),
    _Rule("objectives", "objectives", _same, together),
    _Rule("on_no_data", "on_no_data", _same, _strictest("allow", "avoid", "refuse")),
    _Rule("on_breach", "on_breach", _same, _strictest("prefer_faster", "shed", "refuse")),
    _Rule("max_per_request_picos", "max_per_request", picos_of, min),
    _Rule("max_input_picos_per_token", "max_input_per_million", picos_per_token_of, min),
    _Rule("max_output_picos_per_token", "max_output_per_million", picos_per_token_of, min),
    _Rule("hour_ceilings", "hour_ceilings", _same, least_of_each),
    _Rule("prefer", "prefer", _same, _nearest),
    _Rule("weights", "weights", _same, _nearest),
    _Rule("affinity", "affinity", _same, _nearest),
    _Rule("experiment", "trial", _same, _nearest),
    _Rule("hold", "hold", _same, _fullest),
    _Rule("slice", "slice", _same, min),
    _Rule("clamp", "clamp", _same, _nearest),
    _Rule("least_output", "least_output", _same, _nearest),
    _Rule("default_output", "default_output", _same, _nearest),
    _Rule("store_answers", "store_answers", _same, _all),
    _Rule("keep_seconds", "keep_seconds", _same, min),
    _Rule("degrade_to", "on_exhausted", _cheaper_model, _nearest_if_any),
    _Rule("max_attempts", "max_attempts", _same, min),
    _Rule("hedge_after_ms", "hedge_after_ms", _same, _nearest),
    _Rule("hedge_percent", "hedge_percent", _same, min),
    _Rule("priority", "priority", _same, min),
)


_Merge = Callable[[Any, Any], Any]

# What is said of the content, and so of wherever the content goes.
_GOES_ALONG: Final[tuple[tuple[str, _Merge], ...]] = (
    ("residency", _both),
    ("placements", _both),
    ("data_classes", _either),
)
# All that is required of the way of a request.
_REQUIRED: Final[tuple[tuple[str, _Merge], ...]] = (
    *_GOES_ALONG,
    ("capabilities", _either),
    ("least_context", max),
)
# A shadow is sent once, keeps nothing, and lets everybody else go first.
_ONCE: Final[dict[str, Any]] = {
    "experiment": None,
    "hold": "full",
    "store_answers": False,
    "degrade_to": None,
    "max_attempts": 1,
    "hedge_after_ms": None,
    "priority": 1,
}


def compile_policies(documents: Sequence[Scoped], model: str) -> EffectivePolicy:
    """One policy for one key and model, from the documents of every scope above the key.

    What a document asks of a request besides the model is not looked at: `occasions` chooses. The
    order given does not matter: outer scopes come before inner ones, then names decide.
    """
    applying = sorted(
        (scoped for scoped in documents if _applies(scoped[3], model)),
        key=lambda scoped: (_KINDS[scoped[0]], scoped[1], scoped[2]),
    )
    if not applying:
        return DEFAULT
    fields: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for _kind, _depth, name, document in applying:
        for rule in _RULES:
            _merge_field(rule, document, name, fields, sources)
        if any(path.split(".")[0] not in _HARMLESS for path in document.unreadable):
            # What cannot be read may have been a restriction: nothing is permitted until it can.
            fields["residency"], sources["residency"] = frozenset(), name
    return EffectivePolicy(**fields, sources=sources)


def within(inner: EffectivePolicy, outer: EffectivePolicy) -> EffectivePolicy:
    """`inner`, bound to where `outer` lets a request go: content that was sent under one policy
    leaves its jurisdictions and placements under no other, and keeps its classes (L8).
    """
    return _bound(inner, outer, _GOES_ALONG)


def required(inner: EffectivePolicy, outer: EffectivePolicy) -> EffectivePolicy:
    """`inner` with all that `outer` requires as well: as `within`, and what a model must offer."""
    return _bound(inner, outer, _REQUIRED)


def for_shadow(paying: EffectivePolicy, bound: EffectivePolicy) -> EffectivePolicy:
    """The policy of a request that is sent a second time: whoever pays decides on it, and it keeps
    to all that is `required` of the one it is a shadow of (L8).
    """
    policy = required(paying, bound)
    by = bound.sources.get("experiment")
    told = {} if by is None else dict.fromkeys(_ONCE, by)
    return msgspec.structs.replace(policy, **_ONCE, sources=policy.sources | told)


def _bound(
    inner: EffectivePolicy, outer: EffectivePolicy, rules: Sequence[tuple[str, _Merge]]
) -> EffectivePolicy:
    fields: dict[str, Any] = {}
    sources = dict(inner.sources)
    for name, merge in rules:
        mine, bound, unset = getattr(inner, name), getattr(outer, name), getattr(DEFAULT, name)
        if bound == unset:
            continue
        fields[name] = bound if mine == unset else merge(mine, bound)
        by = [policy.sources[name] for policy in (outer, inner) if name in policy.sources]
        sources[name] = ", ".join(dict.fromkeys(by))
    return msgspec.structs.replace(inner, **fields, sources=sources) if fields else inner


def _applies(document: PolicyDocument, model: str) -> bool:
    return document.models is None or model in document.models


def _merge_field(
    rule: _Rule,
    document: PolicyDocument,
    name: str,
    fields: dict[str, Any],
    sources: dict[str, str],
) -> None:
    written = getattr(document, rule.written)
    if written is None:
        return
    value = rule.read(written)
    if rule.field not in fields:
        fields[rule.field], sources[rule.field] = value, name
        return
    before = fields[rule.field]
    merged = rule.merge(before, value)
    fields[rule.field] = merged
    if merged == value and (merged != before or rule.merge is _nearest):
        sources[rule.field] = name
    elif merged != before:  # neither alone: a true intersection or union
        sources[rule.field] = f"{sources[rule.field]}, {name}"
