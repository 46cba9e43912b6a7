"""Configuration as the database holds it: one frozen Struct a noun.

Rows never leave stores/sql in any other form. Times are microseconds UTC; money is text (exact
decimal) or picos where the name says so.
"""

from collections.abc import Mapping

import msgspec

from billing.tco import Profile


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    currency: str  # ISO 4217
    timezone: str  # IANA
    tag_names: tuple[str, ...] | None = None  # None: any well-formed tag name
    end_users: str = "off"  # off | pseudonym: what is kept of whom a request was for
    shard: str = "s00"  # the Redis hash tag; stored, never computed
    version: int = 1
    created_at_us: int = 0


class PseudonymKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that a tenant's end users are hashed with, sealed. The newest one hashes; with those
    before people are still found.
    """

    id: str
    tenant_id: str
    key_version: int  # 1, 2, 3 ... of the tenant
    credential_sealed: bytes  # base64 of 32 bytes
    created_at_us: int = 0


class Team(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    parent_id: str | None = None
    name: str
    cost_center: str | None = None
    weight: int = 1  # at backends that are full, beside that of other teams
    version: int = 1
    created_at_us: int = 0


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An application key. `name` is the app, kept over rotation; secrets are rows of their own."""

    id: str
    tenant_id: str
    team_id: str
    name: str
    expires_at_us: int | None = None
    models: tuple[str, ...] | None = None  # scopes.models; None: every model
    cidrs: tuple[str, ...] | None = None  # scopes.cidrs; None: any address
    revoked_at_us: int | None = None
    version: int = 1
    created_at_us: int = 0


class KeySecret(msgspec.Struct, frozen=True, kw_only=True):
    """One live secret of a key. `public_id` is the first part of `mh_<id>_<secret>_<checksum>`."""

    public_id: str
    key_id: str
    digest: bytes  # HMAC-SHA-256(pepper, secret)
    pepper_version: int = 1
    expires_at_us: int | None = None  # the end of the overlap after a rotation
    revoked_at_us: int | None = None
    created_at_us: int = 0


class AdminToken(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may use the admin API. `name` is kept over rotation; secrets are rows of their
    own.
    """

    id: str
    tenant_id: str | None = None  # None: the platform's
    name: str
    role: str
    scope_kind: str  # platform | tenant | team
    scope_id: str  # "" of the platform
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    version: int = 1
    created_at_us: int = 0


class AdminTokenSecret(msgspec.Struct, frozen=True, kw_only=True):
    """One live secret of an admin token, as `KeySecret` is one of a key."""

    public_id: str
    token_id: str
    digest: bytes
    pepper_version: int = 1
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    created_at_us: int = 0
    made_by: str | None = None  # ids of tokens, a space between: whoever could have seen it


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    dialect: str  # openai
    base_url: str  # with its /v1
    region: str
    jurisdictions: tuple[str, ...] = ()
    data_classes: tuple[str, ...] = ()  # the kinds of data it is cleared for
    placement: str = "cloud"  # cloud | edge | on_prem | workstation
    credential_sealed: bytes | None = None
    max_concurrency: int | None = None
    provider: str | None = None  # gen_ai.provider.name; None: the dialect's
    trusted: bool = False  # may receive traceparent
    on_disconnect: str = "abort"  # abort | drain
    connect_timeout_ms: int = 2_000
    first_byte_timeout_ms: int = 120_000
    idle_timeout_ms: int = 60_000
    total_timeout_ms: int = 1_800_000
    tco: Profile | None = None  # of hardware of our own; its cost prices follow from it
    tco_from_us: int | None = None  # since when the box costs what the profile says
    version: int = 1
    created_at_us: int = 0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    backend_id: str
    upstream_model: str
    weight: int = 1


class Model(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    targets: tuple[Target, ...]
    capabilities: tuple[str, ...] = ("chat",)
    context_window: int | None = None
    max_output_tokens: int | None = None
    encoding: str = "o200k_base"  # tiktoken encoding used where we count
    bytes_factor: str = "1"  # most tokens one byte of prompt can become
    image_tokens: int = 2048  # most tokens one image can become
    markup: str = "1"  # charge = cost x markup where no charge price exists
    version: int = 1
    created_at_us: int = 0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a policy document; `document` is the canonical JSON of what was submitted."""

    id: str
    policy_version: int
    name: str
    scope_kind: str  # tenant | team | key
    scope_id: str
    tenant_id: str
    state: str  # draft | shadow | active | retired
    document: bytes
    version: int = 1
    created_at_us: int = 0
    activated_at_us: int = 0  # this version, for the last time; 0: never


class PolicyStep(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a policy came into a state."""

    policy_id: str
    seq: int  # of the policy, ascending
    policy_version: int
    state: str
    at_us: int
    author: str | None = None  # the principal's name; None: from before it was noted
    reason: str | None = None


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    scope_kind: str
    scope_id: str
    amount: str  # decimal, in the tenant's currency
    period: str  # day | week | month | quarter | total
    mode: str = "hard"  # hard | soft
    outage: str = "bounded"  # strict | bounded | open
    thresholds: tuple[int, ...] = (50, 80, 100)  # alert thresholds, per cent
    # When its spending had to be counted anew (another period); 0: never.
    reopened_at_us: int = 0
    version: int = 1
    created_at_us: int = 0

    @property
    def account_id(self) -> str:
        """Names its accounts in the store: others since it was counted anew."""
        return self.id if not self.reopened_at_us else f"{self.id}.{self.reopened_at_us}"

    @property
    def counts_from_us(self) -> int:
        """What was spent before is on no account that was not opened with it."""
        return self.reopened_at_us or self.created_at_us


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """More than a budget's amount, from when it was made until a time."""

    id: str
    tenant_id: str
    budget_id: str
    amount: str  # decimal without needless zeros, in the tenant's currency
    until_us: int
    approver: str
    reason: str
    revoked_at_us: int | None = None
    version: int = 1
    created_at_us: int = 0


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    scope_kind: str
    scope_id: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent_requests: int | None = None
    # When its tokens per day had to be counted anew; 0: never.
    reopened_at_us: int = 0
    version: int = 1
    created_at_us: int = 0

    @property
    def account_id(self) -> str:
        """Names its accounts of tokens per day in the store."""
        return f"{self.id}{f'.{self.reopened_at_us}' if self.reopened_at_us else ''}:tpd"

    @property
    def counts_from_us(self) -> int:
        """What was used before is on no account that was not opened with it."""
        return self.reopened_at_us or self.created_at_us


class TierPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A meter's price beyond so many tokens: of a prompt, or of a month."""

    above_tokens: int
    amount_per_million: str


class LoopBreaker(msgspec.Struct, frozen=True, kw_only=True):
    """What calls of one shape by one key at the scope or below may cost a minute."""

    id: str
    tenant_id: str
    scope_kind: str
    scope_id: str
    amount_per_minute: str  # decimal, in the tenant's currency
    least_requests: int  # in that minute: fewer are no loop
    action: str  # alert | block
    block_minutes: int
    version: int = 1
    created_at_us: int = 0


class KeyBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is refused for a time, because a breaker found it looping."""

    id: str
    tenant_id: str
    team_id: str
    key_id: str
    breaker_id: str
    alert_id: str
    shape: str
    reason: str  # for whoever holds the key: what it did, and what to do
    from_us: int
    until_us: int
    lifted_at_us: int | None = None
    version: int = 1


class QuantityTiers(msgspec.Struct, frozen=True, kw_only=True):
    """Prices by the quantity of a month."""

    mode: str  # graduated | volume
    tiers: tuple[TierPrice, ...]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    book: str  # charge | cost
    model: str | None = None
    tenant_id: str | None = None
    backend_id: str | None = None
    upstream_model: str | None = None
    meter: str
    service_tier: str = "standard"  # of `billing.service_tiers`
    amount_per_million: str  # decimal with at most 6 decimals
    context_tiers: tuple[TierPrice, ...] = ()
    quantity_tiers: QuantityTiers | None = None
    currency: str
    effective_from_us: int
    state: str = "approved"  # draft | approved
    source: str = "manual"
    drafted_by: str | None = None  # id of the principal who wrote it as it is
    approved_by: str | None = None
    version: int = 1
    created_at_us: int = 0


class Discount(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant pays less than the list."""

    id: str
    tenant_id: str
    percent: str  # decimal with at most 4 decimals
    model: str | None = None  # None: every model
    meter: str | None = None  # None: every meter
    effective_from_us: int
    state: str = "approved"  # draft | approved
    drafted_by: str | None = None  # id of the principal who wrote it as it is
    approved_by: str | None = None
    version: int = 1
    created_at_us: int = 0


class Commitment(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant agreed to spend; days are of the tenant's calendar."""

    id: str
    tenant_id: str
    amount: str  # of a whole term, in the tenant's currency
    term: str  # month | quarter | year
    first_day: str  # 2026-10-16
    last_day: str | None = None
    prepaid: bool = False
    overage_percent: str = "100"  # of the price
    rollover_percent: str = "0"  # of the amount
    state: str = "approved"  # draft | approved
    drafted_by: str | None = None  # id of the principal who wrote it as it is
    approved_by: str | None = None
    version: int = 1
    created_at_us: int = 0


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """All a data plane worker needs, of one instant: active policies and approved prices only."""

    revision: int
    epochs: Mapping[str, int] = {}  # of the store's counters, by tag: what is older is stale
    tenants: tuple[Tenant, ...] = ()
    teams: tuple[Team, ...] = ()
    keys: tuple[Key, ...] = ()
    secrets: tuple[KeySecret, ...] = ()
    backends: tuple[Backend, ...] = ()
    models: tuple[Model, ...] = ()
    policies: tuple[Policy, ...] = ()
    budgets: tuple[Budget, ...] = ()
    grants: tuple[Grant, ...] = ()  # in force when this was read
    limits: tuple[Limit, ...] = ()
    prices: tuple[Price, ...] = ()
    discounts: tuple[Discount, ...] = ()
    blocks: tuple[KeyBlock, ...] = ()  # in force when this was read
    pseudonym_keys: tuple[PseudonymKey, ...] = ()  # the newest of each tenant that keeps any
    most_picos: int | None = None  # that the database has room for in one row; None: any amount


def plain_decimal(text: str) -> str:
    """Decimal text without needless zeros: `5.00` and `5` are one amount."""
    return text.rstrip("0").rstrip(".") if "." in text else text
