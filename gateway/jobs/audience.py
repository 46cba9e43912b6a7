"""Who is told what: the channels at a scope or above it, and what everything is called."""

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection

from billing.money import parse_counter
from gateway.stores.sql import alerts, keys, teams, tenants
from gateway.stores.sql.rows import Key, Team, Tenant

_OF_AMOUNTS: Final = frozenset(
    {"burn_rate", "anomaly", "loop"}
)  # a channel may find them too small


class Audience(msgspec.Struct, frozen=True):
    """As of one instant. A path is a scope's own id and those above, the tenant's last."""

    tenants: Mapping[str, Tenant]
    teams: Mapping[str, Team]
    keys: Mapping[str, Key]
    channels: tuple[alerts.Channel, ...]
    names: Mapping[str, str]
    paths: Mapping[str, tuple[str, ...]]

    def label(self, kind: str, scope_id: str) -> str:
        """What a scope is called; its id, where it is gone."""
        return f"{kind} {self.names.get(scope_id, scope_id)}"

    def of(self, scope_id: str, rule: str, amount: int, currency: str) -> list[str]:
        """The ids of the channels that want to hear of it. `amount` is in counter units."""
        above = self.paths.get(scope_id, ())
        return [
            each.id
            for each in self.channels
            if each.scope_id in above
            and rule in each.rules
            and (rule not in _OF_AMOUNTS or amount >= parse_counter(each.least_amount, currency))
        ]


def audience(connection: Connection) -> Audience:
    """Everybody, now."""
    everyone = {each.id: each for each in tenants.RECORDS.all(connection)}
    groups = {each.id: each for each in teams.RECORDS.all(connection)}
    apps = {each.id: each for each in keys.RECORDS.all(connection)}
    paths: dict[str, tuple[str, ...]] = {each: (each,) for each in everyone}
    parents = {each.id: each.parent_id or each.tenant_id for each in groups.values()}
    for team_id in groups:
        paths[team_id] = _upwards(team_id, parents)
    for key in apps.values():
        paths[key.id] = (key.id, *paths[key.team_id])
    names = {each.id: each.name for each in everyone.values()}
    names |= {each.id: each.name for each in groups.values()}
    names |= {each.id: each.name for each in apps.values()}
    return Audience(everyone, groups, apps, alerts.CHANNELS.all(connection), names, paths)


def _upwards(team_id: str, parents: Mapping[str, str]) -> tuple[str, ...]:
    path = [team_id]
    while path[-1] in parents and parents[path[-1]] not in path:
        path.append(parents[path[-1]])
    return tuple(path)
