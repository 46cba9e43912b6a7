"""Request bodies: JSON of one Struct, strict, and every refusal names the field at fault."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request

from billing import unseen
from gateway.admin import forms
from gateway.admin.problems import ProblemError, malformed, summary

B = TypeVar("B")

MOST_BYTES: Final = 1024 * 1024
_MOST_DEPTH: Final = 32
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LETTER_FOR_LETTER: Final = "user"  # of a body that names an end user, as an app sent it


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
    """Plain values without control characters anywhere, 32 levels deep at most. Nor with others
    that nobody sees: two names that look the same would be two teams, on an invoice too.
    """
    try:
        tree = msgspec.json.decode(raw)
    except RecursionError:
        raise malformed("", "the body is nested too deeply", "malformed_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise malformed("", f"the body is not JSON: {fault}", "malformed_json") from None
    refuse_controls(tree, "", _MOST_DEPTH)
    _refuse_unseen(tree)
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
    for where, text in _texts(tree, path, depth):
        if _CONTROLS.search(text):
            raise malformed(where, "control characters are not allowed")


def _refuse_unseen(tree: Any) -> None:
    for where, text in _texts(tree, "", _MOST_DEPTH):
        found = None if where == _LETTER_FOR_LETTER else unseen.first(text)
        if found is not None:
            raise malformed(
                where,
                f"it has a character that nobody sees, {found}, and that may change how the rest "
                "is read: write it without",
            )


def _texts(tree: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """All of them, each with where it stands; a field's name stands where its object does."""
    if depth < 0:
        raise malformed(path, "the body is nested too deeply")
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield from _texts(name, path, depth - 1)
            yield from _texts(value, f"{path}.{name}" if path else name, depth - 1)
    elif isinstance(tree, list):
        for position, value in enumerate(tree):
            yield from _texts(value, f"{path}[{position}]", depth - 1)


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> None:
    """A field that is there twice may have been read otherwise by whoever looked before us."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise malformed(name, "this field is given twice", "repeated_field")
        seen.add(name)
