"""Experiments: the requests for one model divided among several, each subject always to the same;
and a share of them sent to another model as well, of the same subjects always.

Who decides is a keyed hash of the subject's name: no draw, no state, no content, and every worker
answers alike. Each experiment divides anew: whoever gets the odd model in one need not in another.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from policies.match import TAG_NAME
from policies.readers import MAX_WEIGHT, SLUG, FieldError, Reader, read_texts
from policies.shadow import SHADOW_SCHEMA, Shadow, read_shadow, shadow_of

BY_KEY: Final = "key"
_BY_TAG: Final = "tag:"
_MOST_VARIANTS: Final = 16


class Experiment(msgspec.Struct, frozen=True):
    """`by` is `key`, or `tag:NAME`: one user of an app, say. Requests without the tag go by key."""

    name: str
    by: str
    split: tuple[tuple[str, int], ...]  # model and weight, by model; (): nothing is divided
    shadow: Shadow | None = None

    def variant(self, key_id: str, tags: Mapping[str, str]) -> str:
        """The model that serves this subject. Another weight moves as few subjects as it can."""
        point = self._point(key_id, tags, "")
        at = point * sum(weight for _, weight in self.split) >> 64
        for model, weight in self.split:
            if at < weight:
                return model
            at -= weight
        raise ValueError(f"the weights of experiment {self.name!r} add up to nothing")

    def shadowed(self, key_id: str, tags: Mapping[str, str]) -> Shadow | None:
        """The shadow that the requests of this subject have, if they have one."""
        shadow = self.shadow
        if shadow is None or not shadow.samples(self._point(key_id, tags, "shadow ")):
            return None
        return shadow

    def _point(self, key_id: str, tags: Mapping[str, str], of: str) -> int:
        """Where the subject stands, in 64 bits; `of` says in which of several divisions."""
        claimed = None if self.by == BY_KEY else tags.get(self.by.removeprefix(_BY_TAG))
        subject = f"{of}key:{key_id}" if claimed is None else f"{of}tag:{claimed}"
        digest = hashlib.blake2b(subject.encode(), digest_size=8, key=self.name.encode()).digest()
        return int.from_bytes(digest)


def experiment_of(written: Mapping[str, Any], scope_kind: str, scope_id: str) -> Experiment:
    """What the reader of the field left, in a document of this scope."""
    split = tuple(sorted(written.get("split", {}).items()))
    shadow = written.get("shadow")
    aside = None if shadow is None else shadow_of(shadow, scope_kind, scope_id)
    return Experiment(written["name"], written.get("by", BY_KEY), split, aside)


def _read(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not _is_whole(set(value)):
        raise FieldError(
            "is not understood",
            "write {name: trial, split: {chat: 90, chat-new: 10}, by: key}, with shadow: {model: "
            "chat-new, percent: 5, payer: {key: id}} beside the split or in its place",
        )
    name, by = value["name"], value.get("by")
    if not isinstance(name, str) or not SLUG.fullmatch(name):
        raise FieldError(
            f"{name!r:.60} is not a name", "write 1 to 64 of a-z, 0-9 and dashes, such as trial-2"
        )
    read: dict[str, Any] = {"name": name}
    if "split" in value:
        read["split"] = _read_split(value["split"])
    if "shadow" in value:
        read["shadow"] = read_shadow(value["shadow"])
    return read if by is None else read | {"by": _read_by(by)}


def _is_whole(parts: set[Any]) -> bool:
    return "name" in parts and bool(parts & _DOES) and parts <= _PARTS


def _read_split(split: Any) -> dict[str, int]:
    if not isinstance(split, Mapping) or not 2 <= len(split) <= _MOST_VARIANTS:
        raise FieldError(
            f"does not divide among 2 to {_MOST_VARIANTS} models", "write {model: 90, other: 10}"
        )
    for model, weight in split.items():
        read_texts([model])
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 < weight <= MAX_WEIGHT:
            raise FieldError(f"{weight!r:.60} is not a weight", f"write 1 to {MAX_WEIGHT}")
    return dict(split)


def _read_by(by: Any) -> str:
    tag = by.removeprefix(_BY_TAG) if isinstance(by, str) else ""
    if by == BY_KEY or (tag != by and TAG_NAME.fullmatch(tag)):
        return str(by)
    raise FieldError(f"{by!r:.60} names no subject", "write key, or tag:NAME")


_DOES: Final = frozenset(("split", "shadow"))
_PARTS: Final = _DOES | {"name", "by"}

EXPERIMENT: Final = Reader(
    _read,
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": f"^{SLUG.pattern}$"},
            "split": {
                "type": "object",
                "propertyNames": {"minLength": 1, "maxLength": 256},
                "additionalProperties": {"type": "integer", "minimum": 1, "maximum": MAX_WEIGHT},
                "minProperties": 2,
                "maxProperties": _MOST_VARIANTS,
            },
            "shadow": SHADOW_SCHEMA,
            "by": {
                "anyOf": [
                    {"enum": [BY_KEY, None]},
                    {"type": "string", "pattern": f"^{_BY_TAG}{TAG_NAME.pattern}$"},
                ]
            },
        },
        "required": ["name"],
        "anyOf": [{"required": [part]} for part in sorted(_DOES)],
        "additionalProperties": False,
    },
)
