"""Which cost centre a team's usage is billed to, and was at any time before.

A change counts from the next quarter of an hour, so that a rollup is of one cost centre as a whole
and what is past never changes.
"""

from typing import Final, NamedTuple

from sqlalchemy import Connection, select

from billing.rollups import BUCKET_US
from gateway import clock
from gateway.stores.sql import former_names
from gateway.stores.sql.invoice_tables import team_places
from gateway.stores.sql.rows import Team
from gateway.stores.sql.tables import teams

ALWAYS_US: Final = 2**63 - 1


class _Place(NamedTuple):
    until_us: int
    parent_id: str | None
    cost_center: str | None


def note_change(connection: Connection, before: Team, after: Team) -> None:
    """Keeps where the team was until now, in the transaction that changes it. Of several changes
    within a quarter of an hour the last one counts.
    """
    if (before.parent_id, before.cost_center) == (after.parent_id, after.cost_center):
        return
    now_us = clock.now_us()
    until_us = now_us + -now_us % BUCKET_US
    of = team_places.c
    known = select(of.team_id).where(of.team_id == before.id, of.until_us == until_us)
    if connection.execute(known).first() is None:
        row = {"team_id": before.id, "until_us": until_us, "tenant_id": before.tenant_id}
        row |= {"parent_id": before.parent_id, "cost_center": before.cost_center}
        connection.execute(team_places.insert().values(**row))


class CostCenters:
    """Of one tenant, as they are and as they were; and what its teams are called."""

    def __init__(self, connection: Connection, tenant_id: str) -> None:
        """Teams that were deleted are known by what they were called last."""
        former = former_names.RECORDS.all(connection, tenant_id=tenant_id)
        self._places: dict[str, list[_Place]] = {
            each.id: [_Place(ALWAYS_US, None, each.cost_center)] for each in former
        }
        self.team_names = {each.id: each.name for each in former}
        for row in connection.execute(select(teams).filter_by(tenant_id=tenant_id)):
            self._places[row.id] = [_Place(ALWAYS_US, row.parent_id, row.cost_center)]
            self.team_names[row.id] = row.name
        self._edges: set[int] = set()
        changed = select(team_places).filter_by(tenant_id=tenant_id)
        for row in connection.execute(changed.order_by(team_places.c.until_us.desc())):
            place = _Place(row.until_us, row.parent_id, row.cost_center)
            self._places.setdefault(row.team_id, []).insert(0, place)
            self._edges.add(row.until_us)

    def spans(self, start_us: int, end_us: int) -> list[tuple[int, int]]:
        """[start, end) in parts within none of which any team changes its cost centre."""
        edges = sorted(edge for edge in self._edges if start_us < edge < end_us)
        return list(zip([start_us, *edges], [*edges, end_us], strict=True))

    def at(self, team_id: str, at_us: int) -> str:
        """The team's own, or that of the nearest team above it; "" where there is none."""
        seen: set[str] = set()
        above: str | None = team_id
        while above is not None and above in self._places and above not in seen:
            seen.add(above)
            place = next(each for each in self._places[above] if at_us < each.until_us)
            if place.cost_center:
                return place.cost_center
            above = place.parent_id
        return ""

    def now(self, team_id: str) -> str:
        return self.at(team_id, ALWAYS_US - 1)
