"""Where a request may go, said a second time and on purpose by other means than the library's: by
countries, from the documents as they are written.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from policies.residency import COUNTRIES, group
from tests.residency.towns import Ask, Site, Town


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
    necessarily the one that was asked for: what binds either binds the request.
    """
    found = []
    for document in town.documents:
        if not (speaks_of(document, ask, ask.model) or speaks_of(document, ask, served)):
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


def speaks_of(document: Mapping[str, Any], ask: Ask, model: str) -> bool:
    match = document.get("match", {})
    tags = match.get("tags", {})
    return (
        model in match.get("models", [model])
        and match.get("stream", ask.stream) == ask.stream
        and all(ask.tags.get(name) == value for name, value in tags.items())
    )
