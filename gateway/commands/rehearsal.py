"""What a dry run would ask of the admin API, and what that says to it without doing it."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gateway.admin.problems import Fault
from gateway.commands.documents import Document, DocumentFault
from gateway.commands.remote import Remote, RemoteError

_MOST_STEPS: Final = 500  # that the API judges at a time: who writes to SQLite waits meanwhile
_NOT_THERE: Final = frozenset({404, 405, 413})  # an older release; more than it reads
_FIELD_NAMES: Final = {
    "tenant_id": "tenant", "team_id": "team", "parent_id": "parent", "backend_id": "backend"
}  # fmt: skip


class Rehearsal:
    """The requests of one dry run, each with the document that it is for. `unasked` afterwards:
    there were some, and the API could not be asked.
    """

    def __init__(self, remote: Remote) -> None:
        self.document: Document | None = None  # whose requests are added now
        self.unasked = False
        self._remote = remote
        self._steps: list[tuple[Document, dict[str, Any]]] = []

    def add(self, method: str, path: str, body: Any = None, imagined: str | None = None) -> None:
        """`imagined`: the id by which later requests name what this one would make."""
        if self.document is None:
            raise RuntimeError("a request for no document")
        step = {"method": method, "path": path, "body": body or {}, "as": imagined}
        self._steps.append((self.document, step))

    def play(self) -> list[DocumentFault]:
        """What would be refused, by document. RemoteError as any request."""
        if not self._steps:
            return []
        if len(self._steps) > _MOST_STEPS:
            self.unasked = True
            return []
        try:
            steps = [step for _, step in self._steps]
            views = self._remote.call("POST", "/rehearsals", {"steps": steps}).json()["steps"]
        except RemoteError as fault:
            if fault.status not in _NOT_THERE:
                raise
            self.unasked = True
            return []
        played = zip(self._steps, views, strict=True)
        return [
            document.fault(*_told(view))
            for (document, _), view in played
            if view["status"] is not None and view["status"] >= 400
        ]


def in_words(faults: Iterable[Fault]) -> list[str]:
    """The API's words, with the names that documents have for its fields."""
    said = []
    for each in faults:
        outer, dot, name = each.field.rpartition(".")
        place = f"{outer}{dot}{_FIELD_NAMES.get(name, name)}: " if each.field else ""
        said.append(place + each.message + (f"; {each.remedy}" if each.remedy else ""))
    return said


def _told(view: dict[str, Any]) -> list[str]:
    return in_words(msgspec.convert(view["errors"], list[Fault])) or [str(view["detail"])]
