"""Teams: nested within one tenant, never in a circle."""

from typing import Annotated, Final

import msgspec
from sqlalchemy import Connection

from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Filter, Page
from gateway.admin.problems import invalid
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.stores.sql import cost_centers, rows, teams, tenants
from policies.fair_queue import LEAST_WEIGHT, MOST_WEIGHT

DEEPEST: Final = 8  # every level is one more account in each admission

Weight = Annotated[
    int,
    msgspec.Meta(
        ge=LEAST_WEIGHT,
        le=MOST_WEIGHT,
        description="where backends are full, teams that wait are served tokens in proportion to"
        " it; counts as at most that of each team above",
    ),
]


class Team(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    tenant_id: fields.Id
    name: fields.Name
    parent_id: fields.Id | None = None
    cost_center: fields.Label | None = None
    weight: Weight = LEAST_WEIGHT


class TeamView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    parent_id: str | None
    name: str
    cost_center: str | None
    weight: int
    created_at: str


class TeamPage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    parent_id: Filter | None = None
    name: Filter | None = None


def _build(
    connection: Connection, _deps: AdminDeps, body: Team, before: rows.Team | None
) -> rows.Team:
    there = before
    if before is None:
        if not tenants.RECORDS.exists(connection, id=body.tenant_id):
            raise invalid("tenant_id", f"there is no tenant {body.tenant_id!r}")
        before = rows.Team(
            id=ids.new("team"), tenant_id=body.tenant_id, name="", created_at_us=clock.now_us()
        )
    elif before.tenant_id != body.tenant_id:
        raise invalid("tenant_id", "a team stays with its tenant")
    row = msgspec.structs.replace(
        before,
        name=body.name,
        parent_id=body.parent_id,
        cost_center=body.cost_center,
        weight=body.weight,
    )
    _check_parent(connection, row)
    if there is not None:
        cost_centers.note_change(connection, there, row)
    return row


def _check_parent(connection: Connection, team: rows.Team) -> None:
    if team.parent_id is None:
        return
    parent = teams.RECORDS.one(connection, id=team.parent_id)
    if parent is None or parent.tenant_id != team.tenant_id:
        raise invalid("parent_id", f"the tenant has no team {team.parent_id!r}")
    above = (parent, *teams.ancestors(connection, parent))
    if any(each.id == team.id for each in above):
        raise invalid("parent_id", "a team cannot be inside itself or one of its own teams")
    if len(above) + teams.height(connection, team) > DEEPEST:
        raise invalid("parent_id", f"teams nest at most {DEEPEST} deep")


async def _show(_deps: AdminDeps, row: rows.Team, _facts: None) -> TeamView:
    return TeamView(
        id=row.id,
        tenant_id=row.tenant_id,
        parent_id=row.parent_id,
        name=row.name,
        cost_center=row.cost_center,
        weight=row.weight,
        created_at=clock.rfc3339(row.created_at_us),
    )


RESOURCE: Final = Resource(
    plural="teams",
    singular="team",
    records=teams.RECORDS,
    body=Team,
    view=TeamView,
    page=TeamPage,
    build=_build,
    show=_show,
    in_use=teams.in_use,
    taken="a team of this name in the tenant",
    reads=Right.ORGANISATION_READ,
    changes=Right.TEAMS_CHANGE,
    remove=teams.take_leave,
)
