"""The form of a policy for the API description: the document's own schema, with ids for scopes, and
what is told of its versions.
"""

from typing import Any, Final

from policies.schema import document_schema

_ID: Final = {"type": "string", "pattern": "^[a-z]+_[0-9a-z]{26}$"}
_STATE: Final = {"enum": ["draft", "shadow", "active", "retired"]}
_NUMBER: Final = {"type": "integer"}
_NUMBER_OR_NONE: Final = {"anyOf": [_NUMBER, {"type": "null"}]}
_TEXT: Final = {"type": "string"}
_TEXT_OR_NONE: Final = {"anyOf": [_TEXT, {"type": "null"}]}

POLICY: Final[dict[str, Any]] = document_schema(_ID)

_ABOUT: Final[dict[str, Any]] = {
    "id": _ID,
    "tenant_id": _ID,
    "version": _NUMBER,
    "state": _STATE,
    "active_version": _NUMBER_OR_NONE,
    "shadow_version": _NUMBER_OR_NONE,
    "versions": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"version": _NUMBER, "state": _STATE},
            "required": ["version", "state"],
        },
    },
    "history": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "version": _NUMBER,
                "state": _STATE,
                "at": _TEXT,
                "author": _TEXT_OR_NONE,
                "reason": _TEXT_OR_NONE,
            },
            "required": ["version", "state", "at", "author", "reason"],
        },
        "description": "who brought which version into which state and why, the newest first",
    },
    "warnings": {
        "type": "array",
        "items": _TEXT,
        "description": "what is allowed and yet can hardly be meant",
    },
    "created_at": _TEXT,
}
READ_ONLY: Final = frozenset(_ABOUT)

POLICY_VIEW: Final[dict[str, Any]] = {
    "title": "The document of `version`, and the states of all versions",
    "type": "object",
    "properties": POLICY["properties"] | _ABOUT,
    "required": [*POLICY["required"], *_ABOUT],
    "additionalProperties": False,
}
POLICY_PAGE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": POLICY_VIEW},
        "next": {"anyOf": [_TEXT, {"type": "null"}]},
    },
    "required": ["items", "next"],
}
