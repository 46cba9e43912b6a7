"""The fields of a policy document, one reader each: what may be written, and what instead."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from billing.money import parse_decimal
from policies import residency

PLACEMENTS: Final = ("on_prem", "edge", "cloud", "workstation")
PREFERENCES: Final = ("cheapest", "fastest", "balanced")
PICO_DECIMALS: Final = 12
PER_MILLION_DECIMALS: Final = 6  # amount per million x 10^6 = picos per token, exactly

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
_CAPABILITY: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MAX_MS: Final = 3_600_000
_MAX_TOKENS: Final = 10_000_000
_LEAST_SLICE: Final = 16  # tokens; a smaller one would ask the store more than it streams
_MAX_ATTEMPTS: Final = 10
_MAX_ITEMS: Final = 256
_MAX_TEXT: Final = 256


class FieldError(ValueError):
    """A value that cannot stand: what is wrong, and what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


Reader = Callable[[Any], Any]


class Field(NamedTuple):
    """One field: where it is written, where it is kept, how it is read."""

    path: str
    attribute: str
    read: Reader


def read_name(value: Any) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise FieldError(
        "is not a name",
        "write 1 to 64 letters, digits, spaces, dots, dashes or underscores, such as eu-support",
    )


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
    if len(value) > _MAX_ITEMS:
        raise FieldError(f"has {len(value)} entries", f"write at most {_MAX_ITEMS}")
    for each in value:
        if not isinstance(each, str) or not 0 < len(each) <= _MAX_TEXT:
            raise FieldError(
                f"holds {each!r:.60}, which is not a text of 1 to {_MAX_TEXT} characters",
                "write names; put what YAML reads otherwise in quotes",
            )
    if len(set(value)) < len(value):
        raise FieldError("names something twice", "name each once")
    return tuple(value)


def read_jurisdictions(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and any(each is False for each in value):
        raise FieldError("holds false", 'YAML reads a bare NO as false; write Norway as "NO"')
    names = read_texts(value)
    for name in names:
        if (fault := residency.fault(name)) is not None:
            raise FieldError(fault, "write ISO codes such as DE or US, or the groups EU and EEA")
    return names


def read_capabilities(value: Any) -> tuple[str, ...]:
    names = read_texts(value)
    for name in names:
        if not _CAPABILITY.fullmatch(name):
            raise FieldError(
                f"{name!r} is not a capability",
                "write the words that models bear: chat, completions, embeddings, tools, "
                "json_schema, vision, audio, reasoning",
            )
    return names


def read_placements(value: Any) -> tuple[str, ...]:
    names = read_texts(value)
    for name in names:
        if name not in PLACEMENTS:
            raise FieldError(f"{name!r} is not a placement", f"choose from {', '.join(PLACEMENTS)}")
    return names


def read_prefer(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple):
        return read_placements(value)
    if isinstance(value, str) and value in PREFERENCES:
        return value
    raise FieldError(
        f"{value!r:.60} is not a preference",
        f"write {', '.join(PREFERENCES)}, or a list of placements, best first",
    )


def read_switch(value: Any) -> bool:
    """`on` and `off`, which YAML 1.1 has already turned into booleans unless they were quoted."""
    if isinstance(value, bool):
        return value
    if value in ("on", "off"):
        return bool(value == "on")
    raise FieldError(f"{value!r:.60} is not a switch", "write on or off")


def integer(least: int, most: int) -> Reader:
    """A reader of whole numbers between two bounds."""

    def read(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise FieldError(
            f"{value!r:.60} is not a whole number from {least} to {most}",
            f"write a number such as {least}",
        )

    return read


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
        if parsed < 0:
            raise FieldError(f"{text} is negative", "write zero or more")
        return text

    return read


def one_of(*accepted: str) -> Reader:
    """A reader of fixed words."""

    def read(value: Any) -> str:
        if isinstance(value, str) and value in accepted:
            return value
        raise FieldError(f"{value!r:.60} is not understood", f"write {' or '.join(accepted)}")

    return read


def read_absent(_value: Any) -> None:
    """A field whose only value so far is null, which readers never meet."""
    raise FieldError("is not available in this version", "write null or leave it out")


def read_exhausted(value: Any) -> str | dict[str, str]:
    """What to do when a budget cannot cover the request: refuse, or try a cheaper model."""
    if value == "refuse":
        return "refuse"
    if isinstance(value, Mapping) and set(value) == {"degrade_to"}:
        return {"degrade_to": read_texts([value["degrade_to"]])[0]}
    raise FieldError(
        f"{value!r:.60} is not understood", "write refuse, or {degrade_to: a cheaper model}"
    )


FIELDS: Final = (
    Field("name", "name", read_name),
    Field("match.models", "models", read_texts),
    Field("require.residency", "residency", read_jurisdictions),
    Field("require.capabilities", "capabilities", read_capabilities),
    Field("require.placements", "placements", read_placements),
    Field("slo.ttft_p95_ms", "ttft_p95_ms", integer(1, _MAX_MS)),
    Field("slo.tpot_p95_ms", "tpot_p95_ms", integer(1, _MAX_MS)),
    Field("slo.on_breach", "on_breach", one_of("prefer_faster", "refuse")),
    Field("cost.max_per_request", "max_per_request", amount(PICO_DECIMALS)),
    Field("cost.max_input_per_million", "max_input_per_million", amount(PER_MILLION_DECIMALS)),
    Field("cost.max_output_per_million", "max_output_per_million", amount(PER_MILLION_DECIMALS)),
    Field("prefer", "prefer", read_prefer),
    Field("budget.hold", "hold", one_of("full", "sliced")),
    Field("budget.slice", "slice", integer(_LEAST_SLICE, _MAX_TOKENS)),
    Field("budget.clamp", "clamp", read_switch),
    Field("budget.least_output", "least_output", integer(1, _MAX_TOKENS)),
    Field("budget.default_output", "default_output", integer(1, _MAX_TOKENS)),
    Field("idempotency.store_answers", "store_answers", read_switch),
    Field("idempotency.keep_seconds", "keep_seconds", integer(1, 86_400)),
    Field("budget.on_exhausted", "on_exhausted", read_exhausted),
    Field("retries.max_attempts", "max_attempts", integer(1, _MAX_ATTEMPTS)),
    Field("retries.hedge_after_ms", "hedge_after_ms", read_absent),
)

SECTIONS: Final = frozenset(field.path.split(".")[0] for field in FIELDS if "." in field.path)
