"""Where active policies bound what a team spends in an hour: an account of the team for each, in
which all that the team spends is counted, whatever requests the policy is about.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Connection

from gateway.stores.sql import keys, policies, teams
from gateway.stores.sql.rows import Key, Policy, Team
from policies.document import load

_FIELD = b'"max_per_team_hour"'  # as it stands in a canonical document that has it


class TeamHour(msgspec.Struct, frozen=True):
    """What one team spends in each hour of the clock, while one version of one policy is active.
    A team's spending is that of the teams in it, too.
    """

    policy_id: str
    policy_name: str
    tenant_id: str
    team_id: str
    scope: tuple[str, str]  # of the policy
    counts_from_us: int  # what was spent before is on no account that was not opened with it

    @property
    def account_id(self) -> str:
        """Names its accounts in the store: others each time the policy is activated, since nobody
        counted while it was not in force.
        """
        return f"{self.policy_id}.{self.counts_from_us}.{self.team_id}"


def counted_hours(connection: Connection, **of: str) -> Mapping[str, Sequence[TeamHour]]:
    """Of all that is active, by tenant; `of`: of one tenant."""
    mine = [one for one in policies.active(connection, **of) if _FIELD in one.document]
    if not mine:
        return {}
    found: dict[str, list[TeamHour]] = {}
    every = (teams.RECORDS.all(connection, **of), keys.RECORDS.all(connection, **of))
    for one in team_hours(mine, *every):
        found.setdefault(one.tenant_id, []).append(one)
    return found


def team_hours(
    active: Iterable[Policy], every_team: Iterable[Team], every_key: Iterable[Key]
) -> list[TeamHour]:
    """Of these active policies; of a tenant's, one for each of its outermost teams."""
    mine = [one for one in active if _FIELD in one.document]
    if not mine:
        return []
    outermost: dict[str, list[str]] = {}
    for team in every_team:
        if team.parent_id is None:
            outermost.setdefault(team.tenant_id, []).append(team.id)
    team_of = {key.id: key.team_id for key in every_key}
    found: list[TeamHour] = []
    for one in mine:
        if load(one.document).max_per_team_hour is None:
            continue
        named = [one.scope_id]
        if one.scope_kind == "tenant":
            named = outermost.get(one.scope_id, [])
        elif one.scope_kind == "key":
            named = [team_of[one.scope_id]] if one.scope_id in team_of else []
        scope, since_us = (one.scope_kind, one.scope_id), one.activated_at_us
        found += [TeamHour(one.id, one.name, one.tenant_id, t, scope, since_us) for t in named]
    return found
