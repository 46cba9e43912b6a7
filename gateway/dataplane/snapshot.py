"""Immutable configuration of one revision: every look-up of the hot path is one hash away.

Routes (key x model) and levels (key) are compiled on first use and kept for the life of the
snapshot; a route is compiled again when a price on it changes.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from billing.money import MAX_COUNTER, most_counted
from billing.prices import PriceBook
from billing.usage import UsageEvent, blank
from gateway.dataplane.bands import Sizes, sizes_of
from gateway.dataplane.blocks import Blocks
from gateway.dataplane.end_users import EndUsers, by_tenant
from gateway.dataplane.levels import Level, Levels
from gateway.dataplane.reach import Reach, Unseal
from gateway.dataplane.ways import ONLY_STANDARD, STANDARD, Tiers, Way, at_prices, prices_of
from gateway.stores.redis.keys import DEFAULT_TAG
from gateway.stores.sql import discounts, policies, prices, rows
from gateway.stores.team_hours import TeamHour, team_hours
from policies.candidates import Candidate
from policies.compile import EffectivePolicy, Scoped, within
from policies.decision import Deny, DenyCode
from policies.document import PolicyDocument, load
from policies.facts import DocumentRef
from policies.match import Occasion, minute_of_week
from policies.occasions import Occasions
from policies.panel import Panel

FAR_FUTURE_US: Final = 2**62
_MOST_BRANCHES: Final = 256  # of one route, remembered at a time: a bound, there are a few

_Documents = dict[tuple[str, int], PolicyDocument]  # by policy and version
Row = TypeVar("Row", rows.Budget, rows.Grant, rows.Limit, TeamHour)


class Principal(msgspec.Struct, frozen=True):
    """Who asks. Attribution comes from here alone (L11)."""

    key: rows.Key
    tenant: rows.Tenant
    teams: tuple[rows.Team, ...]  # from the outermost to the key's own
    team_path: tuple[str, ...]  # their ids
    expires_at_us: int  # of the secret that was used or the key, whichever is first
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] | None
    weight: int = 1  # the least of its teams': whoever sets those below his own hands out no more
    end_users: EndUsers | None = None  # of a tenant that keeps whom its requests are for


class Route(msgspec.Struct, frozen=True):
    """One key's way to one model: the policy in force and every candidate, on its panel."""

    model: rows.Model
    policy: EffectivePolicy
    panel: Panel
    ways: dict[tuple[str, str], Way]  # by (backend id, upstream model)
    until_us: int  # when a price on it changes
    timezone: str  # the tenant's
    documents: tuple[DocumentRef, ...]  # every one on the key's path, whatever it asks for
    bound: EffectivePolicy | None = None  # that of another model, which this one stands in for
    shadow: bool = False  # of requests that are sent a second time
    branches: "Branches | None" = None  # where documents ask more of a request than its model
    sizes: Sizes | None = None  # where a price depends on the size of the prompt
    most: int = MAX_COUNTER  # counter units that a request may come to at worst
    tier: str = ""  # that a request asks for, if it is not the standard one
    tiered: "dict[str, Route] | None" = None  # the same in other tiers; None: there are no prices


class Branches:
    """The same way under each policy that a request may meet, compiled when one first meets it."""

    def __init__(self, occasions: Occasions, zone: ZoneInfo) -> None:
        self.occasions = occasions
        self._zone = zone
        self._known: dict[int, Route] = {}

    def occasion(
        self, tags: Mapping[str, str], at_us: int, *, stream: bool, input_tokens: int
    ) -> Occasion:
        return Occasion(stream, input_tokens, tags, minute_of_week(at_us, self._zone))

    def for_another(self) -> "Branches":
        """The same of another trunk, which knows none of these yet."""
        return Branches(self.occasions, self._zone)

    def route(self, trunk: Route, occasion: Occasion) -> Route:
        """The route of a request. `trunk` is the one that all branches share."""
        pattern = self.occasions.pattern(occasion)
        known = self._known.get(pattern)
        if known is None:
            policy = self.occasions.policy(pattern)
            panel = Panel(policy, trunk.panel.candidates)
            known = msgspec.structs.replace(trunk, policy=policy, panel=panel)
            if len(self._known) >= _MOST_BRANCHES:
                self._known.clear()
            self._known[pattern] = known
        return known


def bound_by(route: Route, policy: EffectivePolicy) -> Route:
    """The route, kept to where that policy, of another model, lets a request go (L8)."""
    bound = within(route.policy, policy)
    if bound is route.policy:
        return route
    panel = Panel(bound, route.panel.candidates)
    return msgspec.structs.replace(route, policy=bound, panel=panel, bound=policy)


class Snapshot:
    """One revision of the configuration."""

    def __init__(
        self, config: rows.Configuration, unseal: Unseal, before: "Snapshot | None" = None
    ) -> None:
        """`before`: the one in force until now; what it has read of policies is not read again."""
        self.revision = config.revision
        self.epochs = config.epochs
        self.tags = {DEFAULT_TAG, *(tenant.shard for tenant in config.tenants)}
        self._tenants = {t.id: t for t in config.tenants}
        self._teams = {t.id: t for t in config.teams}
        self._budgets = _by_tenant(config.budgets)
        self._limits = _by_tenant(config.limits)
        self._grants = _by_tenant(config.grants)
        self._hours = _by_tenant(team_hours(config.policies, config.teams, config.keys))
        self._policies = policies.by_scope(config.policies)
        self.documents = _kept(config.policies, before)  # read when first needed
        self.models: Mapping[str, rows.Model] = {m.name: m for m in config.models}
        self._backends = {b.id: Reach(b, unseal) for b in config.backends}
        self._prices = PriceBook(
            map(prices.version_of, config.prices), map(discounts.discount_of, config.discounts)
        )
        self._keys = {key.id: key for key in config.keys if key.revoked_at_us is None}
        self._end_users = by_tenant(config, unseal)
        self._principals = self._principals_of(config)
        # Whose keys were found right, by fingerprint: of each living secret at most one.
        self.recognised: dict[bytes, Principal] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._levels: dict[str, Levels] = {}
        self.blocks = Blocks(config.blocks)
        self._most_picos = config.most_picos
        self._holders: dict[str, Principal] = {}

    def principal(self, public_id: str) -> tuple[Principal, bytes, int] | None:
        """The principal of a key's public id, the digest its secret must have, and with which
        pepper.
        """
        return self._principals.get(public_id)

    def holder(self, key_id: str, now_us: int) -> Principal | None:
        """Whose key it is, whichever secret is used; None: it is not there, or not any more."""
        known = self._holders.get(key_id)
        if known is None and (key := self._keys.get(key_id)) is not None:
            known = self._holders[key_id] = self._principal(key, None)
        return known if known is not None and now_us < known.expires_at_us else None

    def route(self, principal: Principal, model_name: str, now_us: int) -> Route | Deny:
        """Deny: the model is not in the catalogue, or not for this key."""
        known = self._routes.get((principal.key.id, model_name))
        if known is not None and now_us < known.until_us:
            return known
        model = self.models.get(model_name)
        if model is None:
            return Deny(
                DenyCode.MODEL_NOT_FOUND,
                f"the model {model_name[:120]!r} does not exist; GET /v1/models lists what does",
                param="model",
            )
        if principal.key.models is not None and model_name not in principal.key.models:
            return Deny(
                DenyCode.MODEL_NOT_ALLOWED,
                f"this key may not use {model_name!r}; GET /v1/models lists what it may use",
                param="model",
            )
        route = self._compile(principal, model, now_us)
        self._routes[(principal.key.id, model_name)] = route
        return route

    def levels(self, principal: Principal) -> Levels:
        """The limits and budgets on the principal's path."""
        known = self._levels.get(principal.key.id)
        if known is None:
            tenant = principal.tenant
            path = [Level("tenant", tenant.id, f"tenant {tenant.name}")]
            path += [Level("team", team.id, f"team {team.name}") for team in principal.teams]
            path += [Level("key", principal.key.id, f"key {principal.key.name}")]
            known = Levels(
                tenant,
                path,
                self._budgets.get(tenant.id, []),
                self._limits.get(tenant.id, []),
                self._grants.get(tenant.id, []),
                self._hours.get(tenant.id, []),
            )
            self._levels[principal.key.id] = known
        return known

    def allowed_models(self, principal: Principal) -> list[rows.Model]:
        """What `GET /v1/models` shows this key, by name."""
        names = principal.key.models
        return [
            model for name, model in sorted(self.models.items()) if names is None or name in names
        ]

    def _compile(self, principal: Principal, model: rows.Model, now_us: int) -> Route:
        ways: dict[tuple[str, str], Way] = {}
        for target in model.targets:
            reach = self._backends.get(target.backend_id)
            if reach is not None:
                way = self._way(principal, model, target, reach, now_us)
                ways[(target.backend_id, target.upstream_model)] = way
        documents = self._documents_of(principal)
        occasions = Occasions([scoped for scoped, _ in documents], model.name)
        policy, zone = occasions.policy(0), principal.tenant.timezone
        return Route(
            model=model,
            policy=policy,
            panel=Panel(policy, tuple(way.candidate for way in ways.values())),
            ways=ways,
            until_us=self._prices.next_change_us(now_us) or FAR_FUTURE_US,
            timezone=zone,
            documents=tuple(ref for _, ref in documents),
            branches=Branches(occasions, ZoneInfo(zone)) if occasions.differ else None,
            sizes=sizes_of(ways.values()),
            tiered={} if any(way.tiers for way in ways.values()) else None,
            most=most_counted(principal.tenant.currency, self._most_picos),
        )

    def _way(
        self,
        principal: Principal,
        model: rows.Model,
        target: rows.Target,
        reach: "Reach",
        now_us: int,
    ) -> Way:
        backend = reach.backend
        found = prices_of(self._prices, principal.tenant, model, target, now_us)
        candidate = Candidate(
            backend_id=backend.id,
            upstream_model=target.upstream_model,
            region=backend.region,
            jurisdictions=frozenset(backend.jurisdictions),
            placement=backend.placement,
            capabilities=frozenset(model.capabilities),
            context_window=model.context_window,
            weight=target.weight,
            cost_input_picos=None,
            cost_output_picos=None,
            charge_input_picos=None,
            charge_output_picos=None,
            max_concurrency=backend.max_concurrency,
            data_classes=frozenset(backend.data_classes),
        )
        way = Way(
            candidate=candidate,
            backend=backend,
            endpoint=reach.endpoint,
            dialect=reach.dialect,
            timeouts=reach.timeouts,
            headers=reach.headers,
            account=reach.account,
            provider=reach.provider,
            told_region=(b"x-meterhouse-backend-region", backend.region.encode()),
            expected=_blank(principal, model.name, candidate, found),
            tiers=found if len(found) > 1 else ONLY_STANDARD,
        )
        return at_prices(way, found[STANDARD])

    def _documents_of(self, principal: Principal) -> list[tuple[Scoped, DocumentRef]]:
        """Outermost first, then by name; each with what names its version."""
        depths = {("tenant", principal.tenant.id): 0}
        depths |= {("team", team.id): n for n, team in enumerate(principal.teams, start=1)}
        depths[("key", principal.key.id)] = 1_000
        return [
            (
                (row.scope_kind, depth, row.name, self._document(row)),
                DocumentRef(row.scope_kind, depth, row.name, row.id, row.policy_version),
            )
            for scope, depth in depths.items()
            for row in self._policies.get(scope, [])
        ]

    def _document(self, row: rows.Policy) -> PolicyDocument:
        version = row.id, row.policy_version
        known = self.documents.get(version)
        if known is None:
            known = self.documents[version] = load(row.document)
        return known

    def _principals_of(self, config: rows.Configuration) -> dict[str, tuple[Principal, bytes, int]]:
        found: dict[str, tuple[Principal, bytes, int]] = {}
        for secret in config.secrets:
            key = self._keys.get(secret.key_id)
            if key is None or secret.revoked_at_us is not None:
                continue
            principal = self._principal(key, secret.expires_at_us)
            found[secret.public_id] = (principal, secret.digest, secret.pepper_version)
        return found

    def _principal(self, key: rows.Key, secret_expires_at_us: int | None) -> Principal:
        expiry = [at for at in (key.expires_at_us, secret_expires_at_us) if at is not None]
        teams = self._path(key.team_id)
        return Principal(
            key=key,
            tenant=self._tenants[key.tenant_id],
            teams=teams,
            team_path=tuple(team.id for team in teams),
            expires_at_us=min(expiry, default=FAR_FUTURE_US),
            networks=None if key.cidrs is None else tuple(map(_network, key.cidrs)),
            weight=min(team.weight for team in teams),
            end_users=self._end_users.get(key.tenant_id),
        )

    def _path(self, team_id: str) -> tuple[rows.Team, ...]:
        path: list[rows.Team] = []
        at: str | None = team_id
        while at is not None and len(path) < 64:
            team = self._teams[at]
            path.append(team)
            at = team.parent_id
        return tuple(reversed(path))


def _kept(policies: tuple[rows.Policy, ...], before: "Snapshot | None") -> _Documents:
    """Of these, what is known: a version's document never changes."""
    known = before.documents if before is not None else {}
    versions = [(row.id, row.policy_version) for row in policies]
    return {version: known[version] for version in versions if version in known}


def _blank(
    principal: Principal, model: str, candidate: Candidate, tiers: Tiers
) -> UsageEvent | None:
    """At the prices of any tier; None where there are none."""
    priced = next((each for each in tiers.values() if each.charges), None)
    if priced is None:
        return None
    return blank(
        tenant_id=principal.tenant.id,
        team_path=principal.team_path,
        key_id=principal.key.id,
        model=model,
        backend_id=candidate.backend_id,
        upstream_model=candidate.upstream_model,
        region=candidate.region,
        currency=principal.tenant.currency,
        charge_card=priced.charges[0].card,
        cost_card=priced.costs[0].card if priced.costs else None,
    )


def _by_tenant(items: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for item in items:
        found.setdefault(item.tenant_id, []).append(item)
    return found


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)
