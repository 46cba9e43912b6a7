"""Where a request may go, said a second time and on purpose by other means than the library's: by
countries, from the documents as they are written.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from policies.residency import COUNTRIES, group
from tests.residency.towns import LABS, Ask, Site, Town


def countries_of(label: str) -> set[str] | None:
    """The countries whose law a label may mean; None for a label nobody knows."""
    known = group(label)
    if known is not None:
        return set(known.members)
    return {label} if label in COUNTRIES else None


def is_lawful(permitted: Iterable[str], jurisdictions: Iterable[str]) -> bool:
    """Whether content may be where these laws reach it; not where nobody knows which do."""
    allowed: set[str] = set()
    for name in permitted:
        allowed |= countries_of(name) or set()
    laws = [countries_of(label) for label in jurisdictions]
    return bool(laws) and all(law is not None and law <= allowed for law in laws)


def offences(town: Town, ask: Ask, served: str, site: Site) -> list[str]:
    """Why no byte of this request may be at this site, where the model that serves it is not
    necessarily the one that was asked for: what binds either binds the request. What binds whoever
    pays for a shadow binds that as well.
    """
    found = []
    if served == town.mirror and not any(_may_mirror(document, ask) for document in town.documents):
        found.append("nobody who may pay for a shadow has asked for one")
    for document in town.documents:
        if not _binds(town, document, ask, served):
            continue
        require = document.get("require", {})
        residency = require.get("residency")
        if residency is not None:
            if not is_lawful(residency, site.jurisdictions):
                found.append(f"{document['name']}: {residency}, not {site.jurisdictions}")
            if not is_lawful(residency, town.gateway):
                found.append(f"{document['name']}: {residency}, not a gateway in {town.gateway}")
        if site.placement not in require.get("placements", [site.placement]):
            found.append(f"{document['name']}: {require['placements']}, not {site.placement}")
        if not set(require.get("data_classes", ())) <= set(site.data_classes):
            found.append(f"{document['name']}: {require['data_classes']}")
    return found


def _binds(town: Town, document: Mapping[str, Any], ask: Ask, served: str) -> bool:
    if document["scope"] == "lab":
        return served == town.mirror and speaks_of(document, ask, served)
    return speaks_of(document, ask, ask.model) or speaks_of(document, ask, served)


def _may_mirror(document: Mapping[str, Any], ask: Ask) -> bool:
    """The key that pays is in the outer team: no inner one can have it pay."""
    shadowed = "shadow" in document.get("experiment", {})
    return shadowed and document["scope"] in LABS and speaks_of(document, ask, ask.model)


def speaks_of(document: Mapping[str, Any], ask: Ask, model: str) -> bool:
    match = document.get("match", {})
    tags = match.get("tags", {})
    return (
        model in match.get("models", [model])
        and match.get("stream", ask.stream) == ask.stream
        and all(ask.tags.get(name) == value for name, value in tags.items())
    )
