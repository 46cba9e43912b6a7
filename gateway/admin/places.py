"""Where objects lie in the tree of tenants and teams, and which of them somebody can see.

The SQL condition of `visible` and the table of `roles` say the same in two languages: a list shows
what is in sight, and what is in sight can be read one by one.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, false, or_, select

from gateway import ids
from gateway.admin.principal import Principal
from gateway.admin.roles import Path, Relation, relation
from gateway.stores.sql import decisions, tables
from gateway.stores.sql.admin_tables import admin_tokens, audit_rows
from gateway.stores.sql.alert_tables import alert_channels, alerts
from gateway.stores.sql.breaker_tables import key_blocks, loop_breakers
from gateway.stores.sql.decision_tables import decision_blocks
from gateway.stores.sql.invoice_tables import commitments, exchange_rates, invoices
from gateway.stores.sql.provider_bill_tables import provider_bills
from gateway.stores.sql.repricing_tables import repricings


class Place(msgspec.Struct, frozen=True):
    """The node an object is attached to, or is itself. No tenant: the platform."""

    tenant_id: str | None = None
    team_id: str | None = None
    key_id: str | None = None


class Noun(NamedTuple):
    singular: str
    table: Table


NOUNS: Final[Mapping[str, Noun]] = {
    "tenants": Noun("tenant", tables.tenants),
    "teams": Noun("team", tables.teams),
    "keys": Noun("key", tables.keys),
    "backends": Noun("backend", tables.backends),
    "models": Noun("model", tables.models),
    "policies": Noun("policy", tables.policies),
    "budgets": Noun("budget", tables.budgets),
    "grants": Noun("grant", tables.grants),
    "limits": Noun("limit", tables.limits),
    "prices": Noun("price", tables.prices),
    "discounts": Noun("discount", tables.discounts),
    "commitments": Noun("commitment", commitments),
    "repricings": Noun("repricing", repricings),
    "exchange-rates": Noun("exchange rate", exchange_rates),
    "invoices": Noun("invoice", invoices),
    "provider-bills": Noun("provider bill", provider_bills),
    "admin-tokens": Noun("admin token", admin_tokens),
    "alert-channels": Noun("alert channel", alert_channels),
    "alerts": Noun("alert", alerts),
    "loop-breakers": Noun("loop breaker", loop_breakers),
    "key-blocks": Noun("key block", key_blocks),
    "audit": Noun("audit row", audit_rows),
    "decisions": Noun("decision", decision_blocks),  # many in a block: none is looked up by row
}
# Fields of bodies that name objects, and what they name.
REFERENCES: Final[Mapping[str, str]] = {
    "tenant_id": "tenants",
    "team_id": "teams",
    "parent_id": "teams",
    "key_id": "keys",
    "budget_id": "budgets",
    "policy_id": "policies",
    "scope.tenant": "tenants",
    "scope.team": "teams",
    "scope.key": "keys",
}


def locate(connection: Connection, noun: str, identifier: str) -> Place | None:
    """Where the object lies; None when there is none of this id."""
    if noun == "decisions":
        return _of_decision(connection, identifier)
    table = NOUNS[noun].table
    row = connection.execute(select(table).where(table.c.id == identifier)).mappings().first()
    return None if row is None else place_of(connection, noun, dict(row))


def _of_decision(connection: Connection, identifier: str) -> Place | None:
    """Where its key was when it was made."""
    found = decisions.of_request(connection, ids.request_of(identifier))
    return None if found is None else Place(found.record.tenant_id, found.record.team_path[-1])


def place_of(connection: Connection, noun: str, row: Mapping[str, Any]) -> Place:
    """Of a row by its columns, whether it is written already or about to be."""
    match noun:
        case "tenants":
            return Place(row["id"])
        case "teams":
            return Place(row["tenant_id"], row["id"])
        case "keys":
            return Place(row["tenant_id"], row["team_id"], row["id"])
        case "grants":
            found = locate(connection, "budgets", row["budget_id"])
            return found or Place(row["tenant_id"])
    if "scope_kind" in row:
        return scope_place(connection, row["tenant_id"], row["scope_kind"], row["scope_id"])
    return Place(row.get("tenant_id"), row.get("team_id"))


def scope_place(connection: Connection, tenant_id: str | None, kind: str, scope_id: str) -> Place:
    if kind == "key":
        found = locate(connection, "keys", scope_id)
        return found or Place(tenant_id, None, scope_id)
    return Place(tenant_id, scope_id if kind == "team" else None)


class Sight:
    """What a principal sees, of the one instant of a transaction."""

    def __init__(self, connection: Connection, principal: Principal) -> None:
        self._connection = connection
        self._principal = principal

    def relation(self, place: Place) -> Relation:
        return relation(self._own, self._path(place))

    def relation_of(self, noun: str, row: Mapping[str, Any]) -> Relation:
        """Of a row that is written already or about to be."""
        if noun != "teams":
            return self.relation(place_of(self._connection, noun, row))
        above = self._path(Place(row["tenant_id"], row["parent_id"]))
        return relation(self._own, (*above, row["id"]))

    def visible(self, noun: str) -> tuple[ColumnElement[bool], ...]:
        """What rows of the noun's table meet that are in sight; nothing where all are."""
        principal, table = self._principal, NOUNS[noun].table
        if principal.everywhere:
            return ()
        if principal.team_id is not None:
            return (self._in_teams(noun, table),)
        if noun == "tenants":
            return (table.c.id == principal.tenant_id,)
        mine = "tenant_id" in table.c
        return (table.c.tenant_id == principal.tenant_id if mine else false(),)

    @cached_property
    def teams(self) -> frozenset[str]:
        """The ids of the subtree, for a principal that stands at a team."""
        inside: dict[str | None, list[str]] = {}
        for team_id, parent_id in self._parents.items():
            inside.setdefault(parent_id, []).append(team_id)
        own = self._principal.team_id
        found: set[str] = set()
        level: Iterable[str] = [own] if own is not None and own in self._parents else []
        while level:
            found.update(level)
            level = [each for above in level for each in inside.get(above, ()) if each not in found]
        return frozenset(found)

    def _in_teams(self, noun: str, table: Table) -> ColumnElement[bool]:
        if noun == "teams":
            return table.c.id.in_(self.teams)
        if noun == "grants":
            budgets = tables.budgets
            return table.c.budget_id.in_(select(budgets.c.id).where(self._scoped(budgets)))
        if "scope_kind" in table.c:
            return self._scoped(table)
        return table.c.team_id.in_(self.teams) if "team_id" in table.c else false()

    def _scoped(self, table: Table) -> ColumnElement[bool]:
        keys = select(tables.keys.c.id).where(tables.keys.c.team_id.in_(self.teams))
        return or_(
            and_(table.c.scope_kind == "team", table.c.scope_id.in_(self.teams)),
            and_(table.c.scope_kind == "key", table.c.scope_id.in_(keys)),
        )

    @cached_property
    def _own(self) -> Path:
        return self._path(Place(self._principal.tenant_id, self._principal.team_id))

    def _path(self, place: Place) -> Path:
        """Of other tenants no deeper than need be: nothing of them is in sight anyway."""
        above: list[str] = []
        team_id = place.team_id
        while team_id is not None and team_id not in above:
            above.append(team_id)
            team_id = self._parents.get(team_id)
        return tuple(filter(None, (place.tenant_id, *reversed(above), place.key_id)))

    @cached_property
    def _parents(self) -> Mapping[str, str | None]:
        """Of every team of the own tenant. Who stands above teams need not know their order."""
        if self._principal.team_id is None:
            return {}
        teams = tables.teams
        query = select(teams.c.id, teams.c.parent_id)
        found = self._connection.execute(
            query.where(teams.c.tenant_id == self._principal.tenant_id)
        )
        return {row.id: row.parent_id for row in found}
