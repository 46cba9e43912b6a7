"""Who asks, as this API knows him: role, scope, and what he may do where."""

import msgspec

from gateway.admin import roles
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.roles import Relation, Right, Role


class WhoView(msgspec.Struct, frozen=True, kw_only=True):
    """`rights` says of each right whether it holds at the own node, below it, or both."""

    id: str
    name: str
    role: Role
    tenant_id: str | None
    scope: dict[str, str] | None
    rights: dict[Right, tuple[Relation, ...]]


async def _show(call: Call) -> Answer:
    who = call.principal
    held = {right: tuple(sorted(roles.allowed(who.role, right))) for right in Right}
    return Answer(
        WhoView(
            id=who.id,
            name=who.name,
            role=who.role,
            tenant_id=who.tenant_id,
            scope=who.scope,
            rights={right: places for right, places in held.items() if places},
        )
    )


def operations() -> list[Operation]:
    return [
        Operation(
            "GET", "/whoami", "whoami", "See who you are to this API", _show,
            right=Right.SELF_READ, answers=WhoView,
        )
    ]  # fmt: skip
