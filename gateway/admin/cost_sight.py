"""Who sees what backends cost the operator. Tenants see what they are charged: cost and margin are
the platform's own, unless it says otherwise (METERHOUSE_TENANTS_SEE_COST).
"""

from collections.abc import Mapping
from typing import Any, Final

from gateway.admin.operation import Call

EXPECTED: Final = frozenset({"expected_cost"})  # of a candidate
COST: Final = frozenset({"cost"})
OF_MARGIN: Final = COST | {"lost_cost", "margin", "margin_percent", "cost_per_million"}


def sees_cost(call: Call) -> bool:
    """Everybody at the platform, and everybody where tenants are shown it."""
    return call.principal.everywhere or call.deps.tenants_see_cost


def as_seen(call: Call, tree: Any, names: frozenset[str]) -> Any:
    """Plain data, with null in the place of what bears one of the `names`, however deep."""
    return tree if sees_cost(call) else _without(tree, names)


def _without(tree: Any, names: frozenset[str]) -> Any:
    if isinstance(tree, Mapping):
        return {
            name: None if name in names else _without(value, names) for name, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return type(tree)(_without(each, names) for each in tree)
    return tree
