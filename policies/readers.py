"""How one value of a policy document is read, and the JSON Schema of what the reader takes.

Both are made from the same bounds, so what is published and what is accepted cannot part.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from billing.money import parse_decimal
from policies import residency

PLACEMENTS: Final = ("on_prem", "edge", "cloud", "workstation")
PREFERENCES: Final = ("cheapest", "fastest", "balanced", "weighted")
MAX_TOKENS: Final = 10_000_000
MAX_WEIGHT: Final = 10_000
MAX_ATTEMPTS: Final = 10  # of one request

SLUG: Final = re.compile("[a-z0-9][a-z0-9-]{0,63}")
_NAME: Final = "[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}"
_WORD: Final = "[a-z][a-z0-9_]{0,31}"
_MOST_ITEMS: Final = 256
_MOST_TEXT: Final = 256
_MOST_DIGITS: Final = 15  # before the point

Schema = dict[str, Any]


class FieldError(ValueError):
    """A value that cannot stand: what is wrong, and what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Reader(msgspec.Struct, frozen=True):
    """Called with what was written it answers what is kept, or raises FieldError."""

    read: Callable[[Any], Any]
    schema: Schema

    def __call__(self, value: Any) -> Any:
        return self.read(value)


def read_texts(value: Any) -> tuple[str, ...]:
    """A list of different, non-empty texts."""
    if isinstance(value, str):
        raise FieldError("is a single text where a list is expected", f"write [{value}]")
    if not isinstance(value, list | tuple):
        raise FieldError("is not a list", "write a list, such as [a, b]")
    if not value:
        raise FieldError(
            "is empty, which would permit nothing", "name what is meant, or leave the field out"
        )
    if len(value) > _MOST_ITEMS:
        raise FieldError(f"has {len(value)} entries", f"write at most {_MOST_ITEMS}")
    for each in value:
        if not isinstance(each, str) or not 0 < len(each) <= _MOST_TEXT:
            raise FieldError(
                f"holds {each!r:.60}, which is not a text of 1 to {_MOST_TEXT} characters",
                "write names; put what YAML reads otherwise in quotes",
            )
    if len(set(value)) < len(value):
        raise FieldError("names something twice", "name each once")
    return tuple(value)


def listed(items: Schema) -> Schema:
    """The schema of a list of different values."""
    return {
        "type": "array",
        "items": items,
        "minItems": 1,
        "maxItems": _MOST_ITEMS,
        "uniqueItems": True,
    }


def _read_name(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(_NAME, value):
        return value
    raise FieldError(
        "is not a name",
        "write 1 to 64 letters, digits, spaces, dots, dashes or underscores, such as eu-support",
    )


def _read_jurisdictions(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and any(each is False for each in value):
        raise FieldError("holds false", 'YAML reads a bare NO as false; write Norway as "NO"')
    names = read_texts(value)
    for name in names:
        if (fault := residency.fault(name)) is not None:
            raise FieldError(fault, "write ISO codes such as DE or US, or the groups EU and EEA")
    return names


def _read_placements(value: Any) -> tuple[str, ...]:
    names = read_texts(value)
    for name in names:
        if name not in PLACEMENTS:
            raise FieldError(f"{name!r} is not a placement", f"choose from {', '.join(PLACEMENTS)}")
    return names


def _read_prefer(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple):
        return _read_placements(value)
    if isinstance(value, str) and value in PREFERENCES:
        return value
    raise FieldError(
        f"{value!r:.60} is not a preference",
        f"write {', '.join(PREFERENCES)}, or a list of placements, best first",
    )


def _read_weights(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping) or not 0 < len(value) <= _MOST_ITEMS:
        raise FieldError(
            f"does not weigh 1 to {_MOST_ITEMS} backends", "write {backend: 9, other: 1}"
        )
    for name, weight in value.items():
        if not isinstance(name, str) or not 0 < len(name) <= _MOST_TEXT:
            raise FieldError(f"{name!r:.60} names no backend", "write the backend's name or id")
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= MAX_WEIGHT:
            raise FieldError(
                f"{name}: {weight!r:.60} is not a weight", f"write 0, for last, to {MAX_WEIGHT}"
            )
    return dict(value)


def _read_switch(value: Any) -> bool:
    """`on` and `off`, which YAML 1.1 has already turned into booleans unless they were quoted."""
    if isinstance(value, bool):
        return value
    if value in ("on", "off"):
        return bool(value == "on")
    raise FieldError(f"{value!r:.60} is not a switch", "write on or off")


def _read_exhausted(value: Any) -> str | dict[str, str]:
    """What to do when a budget cannot cover the request: refuse, or try a cheaper model."""
    if value == "refuse":
        return "refuse"
    if isinstance(value, Mapping) and set(value) == {"degrade_to"}:
        return {"degrade_to": read_texts([value["degrade_to"]])[0]}
    raise FieldError(
        f"{value!r:.60} is not understood", "write refuse, or {degrade_to: a cheaper model}"
    )


def words(what: str, examples: str) -> Reader:
    """A reader of lists of short lower-case words: capabilities, data classes."""

    def read(value: Any) -> tuple[str, ...]:
        names = read_texts(value)
        for name in names:
            if not re.fullmatch(_WORD, name):
                raise FieldError(f"{name!r} is not a {what}", f"write {examples}")
        return names

    return Reader(read, listed({"type": "string", "pattern": f"^{_WORD}$"}))


def integer(least: int, most: int) -> Reader:
    """A reader of whole numbers between two bounds."""

    def read(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise FieldError(
            f"{value!r:.60} is not a whole number from {least} to {most}",
            f"write a number such as {least}",
        )

    return Reader(read, {"type": "integer", "minimum": least, "maximum": most})


def number_of(*accepted: int) -> Reader:
    """A reader of fixed numbers."""
    shown = ", ".join(map(str, accepted))

    def read(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value in accepted:
            return value
        raise FieldError(f"{value!r:.60} is not one of {shown}", "choose one of them")

    return Reader(read, {"enum": list(accepted)})


def amount(decimals: int) -> Reader:
    """A reader of money: exact decimal text, or a whole number; never a float."""

    def read(value: Any) -> str:
        if isinstance(value, float):
            raise FieldError(
                f"{value!r} is a floating point number, which is not exact",
                f'write it in quotes: "{Decimal(repr(value)):f}"',
            )
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str):
            raise FieldError(f"{value!r:.60} is not an amount", 'write it in quotes: "0.05"')
        try:
            parsed = parse_decimal(text, decimals)
        except ValueError as error:
            raise FieldError(
                str(error), 'write an exact decimal in quotes, such as "0.05"'
            ) from error
        if parsed < 0 or text.startswith("-"):
            raise FieldError(f"{text} is negative", "write zero or more")
        return text

    pattern = f"^[0-9]{{1,{_MOST_DIGITS}}}(\\.[0-9]{{1,{decimals}}})?$"
    whole = {"type": "integer", "minimum": 0, "maximum": 10**_MOST_DIGITS - 1}
    return Reader(read, {"anyOf": [{"type": "string", "pattern": pattern}, whole]})


def one_of(*accepted: str) -> Reader:
    """A reader of fixed words."""

    def read(value: Any) -> str:
        if isinstance(value, str) and value in accepted:
            return value
        raise FieldError(f"{value!r:.60} is not understood", f"write {' or '.join(accepted)}")

    return Reader(read, {"enum": list(accepted)})


_TEXT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": _MOST_TEXT}
_PLACEMENTS: Final = listed({"enum": list(PLACEMENTS)})

NAME: Final = Reader(_read_name, {"type": "string", "pattern": f"^{_NAME}$"})
TEXTS: Final = Reader(read_texts, listed(_TEXT))
JURISDICTIONS: Final = Reader(_read_jurisdictions, listed({"enum": sorted(residency.names())}))
CAPABILITIES: Final = words(
    "capability",
    "the words that models bear: chat, completions, embeddings, tools, json_schema, vision, "
    "audio, reasoning",
)
DATA_CLASSES: Final = words("data class", "words such as personal, health, payment")
PLACES: Final = Reader(_read_placements, _PLACEMENTS)
PREFER: Final = Reader(_read_prefer, {"anyOf": [{"enum": list(PREFERENCES)}, _PLACEMENTS]})
WEIGHTS: Final = Reader(
    _read_weights,
    {
        "type": "object",
        "propertyNames": _TEXT,
        "additionalProperties": {"type": "integer", "minimum": 0, "maximum": MAX_WEIGHT},
        "minProperties": 1,
        "maxProperties": _MOST_ITEMS,
    },
)
SWITCH: Final = Reader(_read_switch, {"enum": ["on", "off", True, False]})
EXHAUSTED: Final = Reader(
    _read_exhausted,
    {
        "anyOf": [
            {"const": "refuse"},
            {
                "type": "object",
                "properties": {"degrade_to": _TEXT},
                "required": ["degrade_to"],
                "additionalProperties": False,
            },
        ]
    },
)
