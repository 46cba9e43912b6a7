"""Shadow traffic: a share of the requests for a model goes to another one as well. Whoever tries it
out pays for that, and nobody sees the second answer.

Where the second request may go is in `compile.for_shadow`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from policies.readers import FieldError, Schema, read_texts

_MOST_PERCENT: Final = 100
_PARTS: Final = frozenset(("model", "percent", "payer"))


class Shadow(msgspec.Struct, frozen=True):
    """`payer` is a key below the scope of the document that says so."""

    model: str
    percent: int  # of the subjects of the experiment
    payer: str  # the id of a key
    scope_kind: str  # of the document: tenant | team
    scope_id: str

    def samples(self, point: int) -> bool:
        """`point` is the subject's, of 64 bits. A larger share has all of a smaller one."""
        return point * _MOST_PERCENT >> 64 < self.percent

    def may_pay(self, tenant_id: str, team_path: Sequence[str]) -> bool:
        """Whether a key that stands there is below the scope: nobody can have others pay."""
        if self.scope_kind == "tenant":
            return tenant_id == self.scope_id
        return self.scope_kind == "team" and self.scope_id in team_path


def shadow_of(written: Mapping[str, Any], scope_kind: str, scope_id: str) -> Shadow:
    """What `read_shadow` left, in a document of this scope."""
    payer = written["payer"]["key"]
    return Shadow(written["model"], written["percent"], payer, scope_kind, scope_id)


def read_shadow(value: Any) -> dict[str, Any]:
    """The part of an experiment that speaks of it. FieldError when it cannot stand."""
    if not isinstance(value, Mapping) or set(value) != _PARTS:
        raise FieldError(
            "shadow is not understood", "write {model: chat-new, percent: 5, payer: {key: id}}"
        )
    percent, payer = value["percent"], value["payer"]
    if (
        isinstance(percent, bool)
        or not isinstance(percent, int)
        or not 0 < percent <= _MOST_PERCENT
    ):
        raise FieldError(
            f"shadow: {percent!r:.60} is not a share", f"write a percentage, 1 to {_MOST_PERCENT}"
        )
    if not isinstance(payer, Mapping) or set(payer) != {"key"}:
        raise FieldError(
            f"shadow: {payer!r:.60} pays for nothing",
            "write payer: {key: id}, the experiment's key",
        )
    (model,), (key,) = read_texts([value["model"]]), read_texts([payer["key"]])
    return {"model": model, "percent": percent, "payer": {"key": key}}


_TEXT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 256}

SHADOW_SCHEMA: Final[Schema] = {
    "type": "object",
    "properties": {
        "model": _TEXT,
        "percent": {"type": "integer", "minimum": 1, "maximum": _MOST_PERCENT},
        "payer": {
            "type": "object",
            "properties": {"key": _TEXT},
            "required": ["key"],
            "additionalProperties": False,
        },
    },
    "required": sorted(_PARTS),
    "additionalProperties": False,
}
