"""What an audit row tells of an object: facts, never secrets.

A secret is left out, or stands there as a digest of its sealed form: that it changed can be seen,
what it is cannot.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_LEFT_OUT: Final = frozenset({"digest", "created_at_us", "activated_at_us", "version"})
_SEALED: Final = frozenset({"credential_sealed", "secret_sealed"})

Facts = Mapping[str, Any]


def facts(row: msgspec.Struct | Facts | None) -> dict[str, Any] | None:
    if row is None:
        return None
    fields = msgspec.structs.asdict(row) if isinstance(row, msgspec.Struct) else row
    return {name: _fact(name, value) for name, value in fields.items() if name not in _LEFT_OUT}


def difference(
    before: dict[str, Any] | None, after: dict[str, Any] | None
) -> tuple[str | None, str | None]:
    """Both as JSON. Of what was there before and after, only what is not the same."""
    if before is not None and after is not None:
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        before = {name: value for name, value in before.items() if name in changed}
        after = {name: value for name, value in after.items() if name in changed}
    return _written(before), _written(after)


def _written(facts: dict[str, Any] | None) -> str | None:
    return None if facts is None else msgspec.json.encode(facts, order="deterministic").decode()


def _fact(name: str, value: Any) -> Any:
    if name in _SEALED and value is not None:
        return f"sealed sha256:{hashlib.sha256(value).hexdigest()[:16]}"
    if isinstance(value, bytes):  # a policy's document
        return msgspec.json.decode(value)
    return msgspec.to_builtins(value)
