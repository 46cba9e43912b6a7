"""Request bodies: JSON of one Struct, strict, and every refusal names the field at fault."""

import json
import re
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request

from gateway.admin import forms
from gateway.admin.problems import ProblemError, malformed, summary

B = TypeVar("B")

MOST_BYTES: Final = 1024 * 1024
_MOST_DEPTH: Final = 32
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


async def read(request: Request[Any, Any, Any]) -> Any:
    """The body as plain values. 415 for another media type, 400 for what is not JSON."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise ProblemError(
            415,
            "unsupported_media_type",
            f"the body must be JSON: send content-type: application/json, not {media!r:.80}",
        )
    return parse(await request.body())


def parse(raw: bytes) -> Any:
    """Plain values without control characters anywhere, 32 levels deep at most."""
    try:
        tree = msgspec.json.decode(raw)
    except RecursionError:
        raise malformed("", "the body is nested too deeply", "malformed_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise malformed("", f"the body is not JSON: {fault}", "malformed_json") from None
    refuse_controls(tree, "", _MOST_DEPTH)
    json.loads(raw, object_pairs_hook=_refuse_repeats)  # no deeper than what msgspec decoded
    return tree


def convert(tree: Any, kind: type[B], *, strict: bool = True) -> B:
    """Plain values as a `kind`. 400 names every field that is unknown, missing or unfit."""
    try:
        return msgspec.convert(tree, kind, strict=strict)
    except msgspec.ValidationError as fault:
        found = forms.faults(tree, kind, strict=strict)
        if not found:
            raise malformed("", str(fault)) from None
        errors = [each.fault for each in found]
        codes = {each.code for each in found}
        code = codes.pop() if len(codes) == 1 else "invalid_request"
        raise ProblemError(400, code, summary(errors), errors) from None


def refuse_controls(tree: Any, path: str, depth: int) -> None:
    """Control characters break headers, logs and PostgreSQL's text; no field has a use for them."""
    if depth < 0:
        raise malformed(path, "the body is nested too deeply")
    if isinstance(tree, str) and _CONTROLS.search(tree):
        raise malformed(path, "control characters are not allowed")
    if isinstance(tree, dict):
        for name, value in tree.items():
            refuse_controls(name, path, depth - 1)
            refuse_controls(value, f"{path}.{name}" if path else name, depth - 1)
    elif isinstance(tree, list):
        for position, value in enumerate(tree):
            refuse_controls(value, f"{path}[{position}]", depth - 1)


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> None:
    """A field that is there twice may have been read otherwise by whoever looked before us."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise malformed(name, "this field is given twice", "repeated_field")
        seen.add(name)
