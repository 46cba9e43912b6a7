"""What a team may spend in an hour, as the documents above a key say it.

A document speaks of one team: its own; that of the key it is for; or, when it is for a tenant, the
outermost one on the key's path, and so of every such team of the tenant. Which team that is, is for
whoever knows the tree.
"""

import msgspec


class HourCeiling(msgspec.Struct, frozen=True):
    """Posted and held, the team of this scope may have so many picos in an hour of the clock."""

    scope_kind: str  # tenant | team | key
    scope_id: str
    picos: int

    @property
    def scope(self) -> tuple[str, str]:
        return self.scope_kind, self.scope_id


HourCeilings = tuple[HourCeiling, ...]


def together(outer: HourCeilings, inner: HourCeilings) -> HourCeilings:
    """All of them, of each scope the least: a ceiling on a team says nothing of the one above it,
    which has others to spend for.
    """
    least: dict[tuple[str, str], HourCeiling] = {}
    for one in (*outer, *inner):
        known = least.get(one.scope)
        if known is None or one.picos < known.picos:
            least[one.scope] = one
    return tuple(least.values())
