"""Teams, nested: a team's ancestors all bind it."""

from typing import Final

from sqlalchemy import Connection

from gateway.stores.sql import scopes
from gateway.stores.sql.records import Records, first_in_use
from gateway.stores.sql.rows import Team
from gateway.stores.sql.tables import keys, rollups, teams

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
        ("usage", (rollups.c.tenant_id == team.tenant_id) & (rollups.c.team_id == team.id)),
    )
