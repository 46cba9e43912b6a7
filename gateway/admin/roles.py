"""The one table of who may do what to what: role x right x where the object lies. Deny by default.

Pure: no I/O and no clock. What is not in the table is refused; what lies outside a principal's own
subtree is never in it, so a right can only ever be narrowed by where somebody stands.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

Path = tuple[str, ...]  # ids from the tenant down to the object's owner; () is the platform itself


class Role(StrEnum):
    PLATFORM_ADMIN = "platform_admin"
    TENANT_ADMIN = "tenant_admin"
    TEAM_ADMIN = "team_admin"
    FINANCE = "finance"
    AUDITOR = "auditor"


class Right(StrEnum):
    """What an operation needs. `explain` and `replay` read, whatever their method is."""

    SELF_READ = "self:read"
    ORGANISATION_READ = "organisation:read"  # tenants and teams
    TENANTS_MANAGE = "tenants:manage"  # create, delete
    TENANTS_CHANGE = "tenants:change"
    TEAMS_CHANGE = "teams:change"
    KEYS_READ = "keys:read"
    KEYS_CHANGE = "keys:change"
    CATALOGUE_READ = "catalogue:read"  # backends and models
    CATALOGUE_CHANGE = "catalogue:change"
    PRICES_READ = "prices:read"
    PRICES_CHANGE = "prices:change"
    RATES_CHANGE = "exchange-rates:change"  # what a month's invoices are converted at
    POLICIES_READ = "policies:read"
    POLICIES_CHANGE = "policies:change"
    BUDGETS_READ = "budgets:read"  # and their grants
    BUDGETS_CHANGE = "budgets:change"
    GRANTS_CHANGE = "grants:change"
    LIMITS_READ = "limits:read"
    LIMITS_CHANGE = "limits:change"
    USAGE_READ = "usage:read"
    END_USERS_READ = "end-users:read"  # by the names that apps have for them
    END_USERS_ERASE = "end-users:erase"
    INVOICES_READ = "invoices:read"  # and what a month would come to if it were priced anew
    INVOICES_DRAFT = "invoices:draft"
    INVOICES_ISSUE = "invoices:issue"  # credit, void, price anew, and the terms they are made by
    STATUS_READ = "status:read"
    TOKENS_READ = "admin-tokens:read"
    TOKENS_CHANGE = "admin-tokens:change"
    ALERTS_READ = "alerts:read"  # and their channels
    ALERTS_CHANGE = "alerts:change"  # of a channel we send to, inside our own network perhaps
    AUDIT_READ = "audit:read"
    DECISIONS_READ = "decisions:read"
    PROVIDER_BILLS_READ = "provider-bills:read"  # what backends cost us
    PROVIDER_BILLS_IMPORT = "provider-bills:import"


class Relation(StrEnum):
    """Where an object lies, as seen from where a principal stands."""

    OWN = "own"  # attached to the very node the principal stands at
    BELOW = "below"
    PARENT = "parent"  # on the way up, to the platform itself
    SIBLING = "sibling"  # elsewhere in the same tenant
    FOREIGN = "foreign"  # in another tenant


class Verdict(StrEnum):
    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"  # in sight, but not for this role: 403
    UNSEEN = "unseen"  # out of sight: answered as what does not exist


_IN: Final = frozenset({Relation.OWN, Relation.BELOW})
_OWN: Final = frozenset({Relation.OWN})
_BELOW: Final = frozenset({Relation.BELOW})
_NOWHERE: Final[frozenset[Relation]] = frozenset()

_READS: Final = frozenset(right for right in Right if right.value.endswith(":read"))
_TEAM_READS: Final = _READS - {
    Right.CATALOGUE_READ, Right.PRICES_READ, Right.INVOICES_READ, Right.TOKENS_READ,
    Right.PROVIDER_BILLS_READ, Right.END_USERS_READ,
}  # fmt: skip

TABLE: Final[Mapping[Role, Mapping[Right, frozenset[Relation]]]] = {
    Role.PLATFORM_ADMIN: dict.fromkeys(Right, _IN),
    Role.TENANT_ADMIN: {
        **dict.fromkeys(_READS, _IN),
        Right.TENANTS_CHANGE: _OWN,
        Right.END_USERS_ERASE: _OWN,
        Right.TEAMS_CHANGE: _BELOW,
        Right.KEYS_CHANGE: _BELOW,
        Right.POLICIES_CHANGE: _IN,
        Right.BUDGETS_CHANGE: _IN,
        Right.GRANTS_CHANGE: _IN,
        Right.LIMITS_CHANGE: _IN,
        Right.INVOICES_DRAFT: _IN,
        Right.INVOICES_ISSUE: _BELOW,  # where no invoice lies: those are at the tenant itself
        Right.PROVIDER_BILLS_IMPORT: _OWN,  # where no bill lies: those are the platform's
        Right.RATES_CHANGE: _OWN,  # nor an exchange rate
        Right.TOKENS_CHANGE: _IN,
    },
    # Narrow only: below the own team, never at it. What stands at it or above binds whatever is
    # made below.
    Role.TEAM_ADMIN: {
        **dict.fromkeys(_TEAM_READS, _IN),
        Right.TEAMS_CHANGE: _BELOW,
        Right.KEYS_CHANGE: _BELOW,
        Right.POLICIES_CHANGE: _BELOW,
        Right.BUDGETS_CHANGE: _BELOW,
        Right.GRANTS_CHANGE: _BELOW,
        Right.LIMITS_CHANGE: _BELOW,
    },
    Role.FINANCE: {
        Right.SELF_READ: _IN,
        Right.ORGANISATION_READ: _IN,
        Right.USAGE_READ: _IN,
        Right.CATALOGUE_READ: _IN,  # bills are of backends, and so is what hardware costs
        Right.PRICES_READ: _IN,
        Right.RATES_CHANGE: _OWN,
        Right.BUDGETS_READ: _IN,
        Right.GRANTS_CHANGE: _IN,
        Right.ALERTS_READ: _IN,
        Right.INVOICES_READ: _IN,
        Right.INVOICES_DRAFT: _IN,
        Right.INVOICES_ISSUE: _BELOW,  # by the platform's, never by whoever is billed
        Right.PROVIDER_BILLS_READ: _IN,
        Right.PROVIDER_BILLS_IMPORT: _OWN,
    },
    Role.AUDITOR: dict.fromkeys(_READS, _IN),
}


def relation(mine: Path, theirs: Path) -> Relation:
    """Where `theirs` lies for somebody who stands at `mine`. () sees everything below itself."""
    if mine == theirs:
        return Relation.OWN
    if theirs[: len(mine)] == mine:
        return Relation.BELOW
    if mine[: len(theirs)] == theirs:
        return Relation.PARENT
    return Relation.SIBLING if mine[:1] == theirs[:1] else Relation.FOREIGN


def in_sight(where: Relation) -> bool:
    return where in _IN


def allowed(role: Role, right: Right) -> frozenset[Relation]:
    """Where the role has the right: nowhere, unless the table says otherwise."""
    return TABLE[role].get(right, _NOWHERE)


def verdict(role: Role, right: Right, where: Relation) -> Verdict:
    if not in_sight(where):
        return Verdict.UNSEEN
    return Verdict.ALLOWED if where in allowed(role, right) else Verdict.FORBIDDEN


def may_hand_out(giver: Role, role: Role) -> bool:
    """Whether somebody of the role `giver` may make another of `role`, in his own subtree: only
    what he has himself, in every place.
    """
    return all(allowed(role, right) <= allowed(giver, right) for right in Right)
