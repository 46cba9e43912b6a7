"""Names for ids and back: in apply files objects are called by the names that people gave them."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

_NOBODY: Final = "0" * 26  # the end of an id that nothing bears
_ID: Final = re.compile(r"[a-z]+_[0-9a-z]{26}")


class UnknownNameError(Exception):
    """Nothing bears the name, or more than one thing does."""


class Names:
    """What exists, by name: tenants and backends plainly, teams in tenants, keys in teams."""

    def __init__(self, objects: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        self._by_id: dict[str, Mapping[str, Any]] = {}
        self._by_kind: dict[str, list[Mapping[str, Any]]] = {}
        self._doubts: Doubts | None = None
        for kind, found in objects.items():
            for each in found:
                self.learn(kind, each)

    def learn(self, kind: str, found: Mapping[str, Any]) -> None:
        """An object that was just created, or will be."""
        self._by_id[found["id"]] = found
        self._by_kind.setdefault(kind, []).append(found)

    def sees(self, kind: str) -> bool:
        """Whether anything of the kind is known at all."""
        return bool(self._by_kind.get(kind))

    def tenant(self, name: str) -> str:
        return self._one("tenant", name, self._by_kind.get("tenant", ()), "")

    def backend(self, name: str) -> str:
        return self._one("backend", name, self._by_kind.get("backend", ()), "")

    def team(self, name: str, tenant: str | None) -> str:
        """`tenant` may be left out while only one tenant has a team of the name."""
        teams = self._by_kind.get("team", [])
        if tenant is None:
            return self._one("team", name, teams, "")
        tenant_id = self.tenant(tenant)
        inside = [each for each in teams if each["tenant_id"] == tenant_id]
        return self._one("team", name, inside, f" in tenant {tenant!r}")

    def key(self, name: str, team: str | None, tenant: str | None) -> str:
        keys = self._by_kind.get("key", [])
        if team is not None:
            team_id = self.team(team, tenant)
            inside = [each for each in keys if each["team_id"] == team_id]
            return self._one("key", name, inside, f" in team {team!r}")
        if tenant is not None:
            tenant_id = self.tenant(tenant)
            keys = [each for each in keys if each["tenant_id"] == tenant_id]
        return self._one("key", name, keys, "")

    def budget(self, scope: Mapping[str, str], period: str) -> str:
        """The budget of a scope of ids."""
        every = self._by_kind.get("budget", ())
        budgets = [each for each in every if each["scope"] == dict(scope)]
        for each in budgets:
            if each["period"] == period:
                return str(each["id"])
        periods = [each["period"] for each in budgets]
        there = f"; its budgets: {', '.join(periods)}; say `period`" if periods else ""
        why = f"the scope has no budget of the period {period!r}{there}"
        return self._nobody("budget", "scope", why, nested=True)

    def known(self, identifiers: Iterable[str]) -> list[str]:
        """Those that something still bears."""
        return [each for each in identifiers if each in self._by_id]

    def of(self, identifier: str) -> Mapping[str, Any]:
        """The object that bears an id."""
        return self._by_id[identifier]

    def scope(self, written: Mapping[str, Any]) -> dict[str, str]:
        """`{tenant: acme, team: core}` is the team: the innermost that is named is meant."""
        tenant, team, key = (written.get(kind) for kind in ("tenant", "team", "key"))
        extra = set(written) - {"tenant", "team", "key"}
        if extra or not (tenant or team or key):
            return {"tenant": self._nobody("tenant", "", "a scope names a tenant, a team or a key")}
        if key is not None:
            return {"key": self.key(key, team, tenant)}
        if team is not None:
            return {"team": self.team(team, tenant)}
        return {"tenant": self.tenant(str(tenant))}

    def name(self, identifier: str) -> str:
        return str(self._by_id[identifier]["name"])

    def path(self, kind: str, identifier: str) -> dict[str, str]:
        """The scope of names that leads to a tenant, team or key, as export writes it."""
        found = self._by_id[identifier]
        match kind:
            case "key":
                return self.path("team", found["team_id"]) | {"key": found["name"]}
            case "team":
                return {"tenant": self.name(found["tenant_id"]), "team": found["name"]}
            case _:
                return {"tenant": found["name"]}

    def live_key(self, named: Mapping[str, Any]) -> dict[str, str] | None:
        """The path to the key of `{key: id}`; None: it is not there, or was revoked."""
        found = self._by_id.get(named["key"])
        if found is None or found.get("revoked_at") is not None:
            return None
        return self.path("key", named["key"])

    def _one(self, kind: str, name: Any, among: Iterable[Mapping[str, Any]], where: str) -> str:
        if not isinstance(name, str):
            return self._nobody(kind, "", f"{name!r} is not a name; put it in quotes")
        if _ID.fullmatch(name) and name in self._by_id:
            return name
        found = [str(each["id"]) for each in among if each["name"] == name]
        if not found:
            why = f"there is no {kind} {name!r}{where}"
            return self._nobody(kind, name, why, nested=bool(where))
        if len(found) > 1:
            why = f"more than one {kind} is called {name!r}; name its tenant too"
            return self._nobody(kind, name, why)
        return found[0]

    @contextmanager
    def doubting(self, inside: str, broken: Container[tuple[str, str]]) -> Iterator["Doubts"]:
        """While it lasts, a name that is nobody's stands for an id that nothing bears and is told
        at the end, so that the rest of the document is looked at too. `inside`: the path to names
        in it; `broken`: kind and name of what would be there, were its own document right.
        """
        self._doubts = doubts = Doubts(inside, broken)
        try:
            yield doubts
        finally:
            self._doubts = None

    def _nobody(self, kind: str, name: str, why: str, *, nested: bool = False) -> str:
        if self._doubts is None:
            raise UnknownNameError(why)
        self._doubts.add(kind, name, why, nested=nested)
        return f"{kind}_{_NOBODY}"


class Doubts:
    """Of one document: `faults`, each with its path; `waits`: it names what is broken itself."""

    def __init__(self, inside: str, broken: Container[tuple[str, str]]) -> None:
        self.faults: list[str] = []
        self.waits = False
        self._inside, self._broken = inside, broken

    def add(self, kind: str, name: str, why: str, *, nested: bool) -> None:
        if (kind, name) in self._broken:
            self.waits = True
        elif not (nested and (self.faults or self.waits)):  # inside of nobody, nobody is
            self.faults.append(f"{self._inside or kind}: {why}")
