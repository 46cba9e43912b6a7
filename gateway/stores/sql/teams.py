"""Teams, nested: a team's ancestors all bind it."""

from typing import Final

from msgspec.structs import replace
from sqlalchemy import Connection

from gateway.stores.sql import admin_tokens, cost_centers, former_names, scopes
from gateway.stores.sql.former_names import FormerName
from gateway.stores.sql.records import Records, first_in_use
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.rows import Team
from gateway.stores.sql.tables import keys, teams

RECORDS: Final = Records(teams, Team)


def ancestors(connection: Connection, team: Team) -> tuple[Team, ...]:
    """The team's parents from the nearest to the outermost. Ends where a cycle would begin."""
    by_id = {each.id: each for each in RECORDS.all(connection, tenant_id=team.tenant_id)}
    above: list[Team] = []
    seen = {team.id}
    parent = by_id.get(team.parent_id or "")
    while parent is not None and parent.id not in seen:
        seen.add(parent.id)
        above.append(parent)
        parent = by_id.get(parent.parent_id or "")
    return tuple(above)


def in_use(connection: Connection, team: Team) -> str | None:
    """What still belongs to the team, in words; None when it may go."""
    return first_in_use(
        connection,
        ("teams inside it", teams.c.parent_id == team.id),
        ("keys", keys.c.team_id == team.id),
        *scopes.references("team", team.id),
        admin_tokens.reference("team", team.id),
        ("usage", (rolled.c.tenant_id == team.tenant_id) & (rolled.c.team_id == team.id)),
    )


def take_leave(connection: Connection, team: Team) -> None:
    """What comes before a team is deleted: its name is kept, and where it is billed to; where it
    was until now as well, because teams that were inside it were billed by that.
    """
    centers = (each.cost_center for each in (team, *ancestors(connection, team)))
    center = next(filter(None, centers), "")
    alone = replace(team, parent_id=None, cost_center=center)
    cost_centers.note_change(connection, team, alone)
    former = FormerName(id=team.id, tenant_id=team.tenant_id, name=team.name, cost_center=center)
    former_names.RECORDS.add(connection, former)


def height(connection: Connection, team: Team) -> int:
    """How many levels the team and what is inside it take: 1 for a team without teams."""
    inside: dict[str | None, list[str]] = {}
    for each in RECORDS.all(connection, tenant_id=team.tenant_id):
        inside.setdefault(each.parent_id, []).append(each.id)
    level, levels, seen = [team.id], 0, {team.id}
    while level:
        levels += 1
        below = [child for parent in level for child in inside.get(parent, ())]
        level = [child for child in below if child not in seen]
        seen.update(level)
    return levels
