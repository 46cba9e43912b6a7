"""The form of a policy for the API description. The rules themselves are `policies.document`'s."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.admin.fields import Decimal, Id, Scope

Text = Annotated[str, Meta(min_length=1, max_length=256)]
Texts = Annotated[tuple[Text, ...], Meta(min_length=1, max_length=256)]
Placement = Literal["on_prem", "edge", "cloud", "workstation"]
Placements = Annotated[tuple[Placement, ...], Meta(min_length=1, max_length=256)]
Millis = Annotated[int, Meta(ge=1, le=3_600_000)]
OutputTokens = Annotated[int, Meta(ge=1, le=10_000_000)]
SliceTokens = Annotated[int, Meta(ge=16, le=10_000_000)]


class Section(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """A part of a policy. What is left out or null is not spoken of."""


class Match(Section, frozen=True):
    models: Texts | None = None


class Require(Section, frozen=True):
    residency: Texts | None = None
    capabilities: Texts | None = None
    placements: Placements | None = None


class Slo(Section, frozen=True):
    ttft_p95_ms: Millis | None = None
    tpot_p95_ms: Millis | None = None
    on_breach: Literal["prefer_faster", "refuse"] | None = None


class Cost(Section, frozen=True):
    max_per_request: Decimal | None = None
    max_input_per_million: Decimal | None = None
    max_output_per_million: Decimal | None = None


class Degrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Serve this model when no budget covers the one asked for."""

    degrade_to: Text


class BudgetRules(Section, frozen=True):
    hold: Literal["full", "sliced"] | None = None
    slice: SliceTokens | None = None
    clamp: Literal["on", "off"] | bool | None = None
    least_output: OutputTokens | None = None
    default_output: OutputTokens | None = None
    on_exhausted: Literal["refuse"] | Degrade | None = None


class Retries(Section, frozen=True):
    max_attempts: Annotated[int, Meta(ge=1, le=10)] | None = None
    hedge_after_ms: None = None


class IdempotencyRules(Section, frozen=True):
    store_answers: Literal["on", "off"] | bool | None = None
    keep_seconds: Annotated[int, Meta(ge=1, le=86_400)] | None = None


class Policy(Section, frozen=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
    scope: Scope
    match: Match | None = None
    require: Require | None = None
    slo: Slo | None = None
    cost: Cost | None = None
    prefer: Literal["cheapest", "fastest", "balanced"] | Placements | None = None
    budget: BudgetRules | None = None
    idempotency: IdempotencyRules | None = None
    retries: Retries | None = None


class VersionView(msgspec.Struct, frozen=True):
    version: int
    state: Literal["draft", "shadow", "active", "retired"]


class PolicyView(Policy, frozen=True, kw_only=True):
    """The document of `version`, and the states of all versions."""

    id: Id
    tenant_id: Id
    version: int
    state: Literal["draft", "shadow", "active", "retired"]
    active_version: int | None
    shadow_version: int | None
    versions: tuple[VersionView, ...]
    warnings: tuple[str, ...]  # what is allowed and yet can hardly be meant
    created_at: str
