"""What `apply --prune` deletes, decided as a whole before the first of it goes.

The admin API refuses to delete what something else refers to. Here the same is known beforehand:
what refers to an object must go with it, and what is history keeps it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.commands.documents import KINDS
from gateway.commands.pricing import APPROVED, DATED
from gateway.commands.remote import Remote

View = dict[str, Any]
Named = tuple[str, View]  # kind and object
Found = Mapping[str, Sequence[View]]  # kind -> objects as they are, or will be once applied
Refusal = tuple[str, View, str | Named]  # kind and object, and what keeps it: history in words, or
# what refers to it

USAGE: Final = "usage refers to it"
_SCOPED: Final = ("policy", "budget", "grant", "limit", "loop-breaker")
_EVER: Final = {"from": "1970-01-01T00:00:00Z"}
# What has a scope and is in no document: in words, and what it may be attached to.
_NOT_APPLIED: Final = {
    "admin-tokens": ("admin tokens", {"tenant", "team"}),
    "alert-channels": ("alert channels", {"tenant", "team", "key"}),
}
_METERED: Final = ("tenant", "team", "key")


class PruneRefusedError(Exception):
    """Something that no document names cannot be deleted; nothing was. The message names it."""


def left_alone(kind: str, view: View, there: Found) -> bool:
    """History that no prune touches: approved prices and discounts, grants that are over, and what
    `revoked` says.
    """
    if kind == "grant" and view["state"] != "active":
        return True
    return revoked(kind, view, there) or (kind in DATED and view["state"] == APPROVED)


def revoked(kind: str, view: View, there: Found) -> bool:
    """Whether it is a revoked key, or attached to one: no document names it."""
    if kind == "key":
        return view["revoked_at"] is not None
    scope = view["scope"].get("key") if kind in _SCOPED else None
    return any(each["id"] == scope and each.get("revoked_at") is not None for each in there["key"])


def doomed(there: Found, kept: set[str]) -> list[Named]:
    """(kind, object) of everything to delete, what refers to others first."""
    found: list[Named] = []
    for kind in reversed(KINDS):
        going = [
            each
            for each in reversed(there[kind])
            if each["id"] not in kept and not left_alone(kind, each, there)
        ]
        found += [(kind, each) for each in _deepest_first(going) if kind == "team"]
        found += [(kind, each) for each in going if kind != "team"]
    return found


def reasons(remote: Remote, there: Found, going: Sequence[Named]) -> Iterator[Refusal]:
    """Everything among `going` that cannot go, even together with all the others."""
    gone = {view["id"] for _, view in going}
    staying = [
        (kind, each) for kind, views in there.items() for each in views if each["id"] not in gone
    ]
    kinds = {kind for kind, _ in going}
    scoped = {
        words: [] if of.isdisjoint(kinds) else list(remote.all(noun))
        for noun, (words, of) in _NOT_APPLIED.items()
    }
    for kind, view in going:
        referrer = next((each for each in staying if _refers(each, kind, view["id"])), None)
        if referrer is not None:
            yield kind, view, referrer
        elif (words := _referring(scoped, view["id"])) is not None:
            yield kind, view, f"{words} refer to it"
        elif kind in _METERED and _has_usage(remote, kind, view["id"]):
            yield kind, view, USAGE
        elif kind == "tenant" and _has_invoices(remote, view["id"]):
            yield kind, view, "invoices refer to it"


def _referring(scoped: Mapping[str, Sequence[View]], identifier: str) -> str | None:
    """What of those that no document names is at this tenant, team or key, in words."""
    for words, views in scoped.items():
        if any(identifier in (each["tenant_id"], *_scope(each)) for each in views):
            return words
    return None


def _scope(token: View) -> Iterator[str]:
    yield from (token["scope"] or {}).values()


def _refers(referrer: Named, kind: str, identifier: str) -> bool:
    own_kind, view = referrer
    if own_kind == "grant":  # it goes with its budget, wherever that goes
        return False
    if own_kind in _SCOPED:
        owner = kind == "tenant" and view.get("tenant_id") == identifier
        return owner or view["scope"].get(kind) == identifier
    if own_kind == "model":
        targets = (each["backend_id"] for each in view["targets"])
        return kind == "backend" and identifier in targets
    if kind == "team":
        return identifier in (view.get("parent_id"), view.get("team_id"))
    if kind in {"tenant", "backend"}:
        return view.get(f"{kind}_id") == identifier
    return False


def _has_usage(remote: Remote, kind: str, identifier: str) -> bool:
    params = _EVER | {f"{kind}_id": identifier}
    return bool(remote.call("GET", "/usage", params=params).json()["items"])


def _has_invoices(remote: Remote, tenant_id: str) -> bool:
    params: dict[str, str | int] = {"tenant_id": tenant_id, "limit": 1}
    return bool(remote.call("GET", "/invoices", params=params).json()["items"])


def _deepest_first(teams: Sequence[View]) -> list[View]:
    parents = {each["id"]: each.get("parent_id") for each in teams}

    def depth(identifier: str | None) -> int:
        return 0 if identifier not in parents else 1 + depth(parents[identifier])

    return sorted(teams, key=lambda each: -depth(each["id"]))
