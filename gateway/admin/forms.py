"""What is wrong with the form of a body or query: every fault at once, each rule in words.

msgspec decides whether a value fits its type and stops at the first that does not. Only then is the
value gone through here, field by field. A type whose limits do not speak for themselves carries its
rule as `Meta(extra={"rule": ...})`; `{noun}` in a rule becomes the field's name without `_id`.
"""

import difflib
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from msgspec import UnsetType

from gateway.admin.problems import Fault

_MOST_SHOWN: Final = 60
_SPECIAL_NOUNS: Final = {"parent": "team"}


class FormFault(msgspec.Struct, frozen=True):
    fault: Fault
    code: str


def faults(tree: Any, kind: Any, *, strict: bool = True) -> tuple[FormFault, ...]:
    """Empty when nothing is found that can be put into words. `strict` as in `msgspec.convert`."""
    return tuple(_look(tree, kind, "", strict))


def _look(value: Any, kind: Any, path: str, strict: bool) -> Iterator[FormFault]:
    try:
        msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError:
        yield from list(_inside(value, kind, path, strict)) or [_fault(value, kind, path)]


def _inside(value: Any, kind: Any, path: str, strict: bool) -> Iterator[FormFault]:
    """Faults of the parts of an object or list; none where the value as a whole is at fault."""
    for option in _options(kind):
        if isinstance(value, dict) and _is_struct(option):
            yield from _fields(value, option, path, strict)
        elif isinstance(value, dict) and get_origin(option) is dict:
            name, item = get_args(option)
            for each in value:
                yield from _look(each, name, _join(path, each), strict)
                yield from _look(value[each], item, _join(path, each), strict)
        elif isinstance(value, list) and get_origin(option) is tuple:
            item = get_args(option)[0]
            for position, each in enumerate(value):
                yield from _look(each, item, f"{path}[{position}]", strict)


def _fields(
    tree: dict[str, Any], kind: type[msgspec.Struct], path: str, strict: bool
) -> Iterator[FormFault]:
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, field in known.items():
        if name in tree:
            yield from _look(tree[name], field.type, _join(path, name), strict)
        elif field.required:
            missing = Fault(_join(path, name), "this field is required")
            yield FormFault(missing, "missing_field")
    for name in tree:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            unknown = Fault(_join(path, name), f"there is no such field{hint}")
            yield FormFault(unknown, "unknown_field")


def _fault(value: Any, kind: Any, path: str) -> FormFault:
    message = f"must be {rule(kind, path)}"
    if not any((meta.extra or {}).get("secret") for meta in _metas(kind)):
        message += f", not {_shown(value)}"
        if type(value) in (int, float) and str in _options(kind):
            message += "; put it in quotes"
    return FormFault(Fault(path, message), "invalid_request")


def rule(kind: Any, path: str) -> str:
    """What the type accepts, as the end of a sentence that begins with `must be`."""
    metas = tuple(_metas(kind))
    for meta in metas:
        if meta.extra and "rule" in meta.extra:
            return str(meta.extra["rule"]).replace("{noun}", _noun(path))
    words = [_rule_of(each, metas, path) for each in _options(kind) if each is not NoneType]
    return " or ".join(words) or "null"


def _rule_of(option: Any, metas: tuple[msgspec.Meta, ...], path: str) -> str:
    if get_origin(option) is Literal:
        return f"one of {', '.join(map(str, get_args(option)))}"
    if get_origin(option) is tuple:
        return f"a list{_counted(metas, 'items')}, each {rule(get_args(option)[0], path)}"
    if get_origin(option) is dict:
        inner = get_args(option)[1]
        return "an object" + ("" if inner is Any else f", each value of it {rule(inner, path)}")
    if option is str:
        return f"text{_counted(metas, 'characters')}"
    if option is int:
        least, most = _limit(metas, "ge"), _limit(metas, "le")
        return f"a whole number{_between(least, most, 'from')}"
    if option is bool:
        return "true or false"
    if _is_struct(option):
        return f"an object with {', '.join(option.__struct_encode_fields__)}"
    return f"one of {', '.join(str(member.value) for member in option)}"  # an enumeration


def _counted(metas: tuple[msgspec.Meta, ...], things: str) -> str:
    between = _between(_limit(metas, "min_length"), _limit(metas, "max_length"), "of")
    return f"{between} {things}" if between else ""


def _limit(metas: tuple[msgspec.Meta, ...], name: str) -> int | None:
    return next((found for meta in metas if (found := getattr(meta, name)) is not None), None)


def _between(least: int | None, most: int | None, word: str) -> str:
    if least is None and most is None:
        return ""
    if most is None:
        return f" {word} at least {least}"
    if least is None:
        return f" {word} at most {most}"
    return f" {word} {least} to {most}"


def _noun(path: str) -> str:
    name = path.rpartition(".")[2].partition("[")[0].removesuffix("_id")
    return _SPECIAL_NOUNS.get(name, name)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def _metas(kind: Any) -> Iterator[msgspec.Meta]:
    """The limits of a type, those of `X | None` included."""
    if get_origin(kind) is Annotated:
        yield from kind.__metadata__
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from _metas(each)


def _options(kind: Any) -> Iterator[Any]:
    """The types a value may have, without their limits."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _options(get_args(kind)[0])
    elif origin in (Union, UnionType):
        for each in get_args(kind):
            yield from _options(each)
    elif kind is not UnsetType:
        yield kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
