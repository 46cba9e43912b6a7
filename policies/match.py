"""What a document may ask of a request besides its model: tags, time of day, stream or not, size.

Tags are the client's claim: they may choose what is asked of a request in addition, never its
rights (L11). `document` refuses everything else beside them.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

import msgspec

from policies.readers import MAX_TOKENS, FieldError, Reader, listed, read_texts

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES: Final = 1_440
_WEEK_MINUTES: Final = 7 * _DAY_MINUTES
_MOST_TAGS: Final = 8
TAG_NAME: Final = re.compile("[a-z0-9_.-]{1,32}")
_TAG_VALUE: Final = r"[ -+\--~]{0,63}[!-+\--~]"  # printable, without the comma that separates tags
_CLOCK: Final = "([01][0-9]|2[0-3]):[0-5][0-9]"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Occasion(msgspec.Struct, frozen=True):
    """What facets look at. `input_tokens` is at four bytes a token, so that every process decides
    alike; the minute is the tenant's, counted from Monday 00:00 on the clock.
    """

    stream: bool
    input_tokens: int
    tags: Mapping[str, str]
    minute_of_week: int


class Facets(msgspec.Struct, frozen=True):
    """All that one document asks, ready to be compared. None and () ask nothing."""

    tags: tuple[tuple[str, frozenset[str]], ...] = ()
    spells: tuple[tuple[int, int], ...] | None = None  # minutes of the week, half open
    stream: bool | None = None
    at_least: int = 0
    at_most: int | None = None

    def hold(self, occasion: Occasion) -> bool:
        """Whether the request is one of those that the document speaks of."""
        size, minute = occasion.input_tokens, occasion.minute_of_week
        return (
            (self.stream is None or self.stream is occasion.stream)
            and self.at_least <= size
            and (self.at_most is None or size <= self.at_most)
            and (self.spells is None or any(a <= minute < b for a, b in self.spells))
            and all(occasion.tags.get(name) in values for name, values in self.tags)
        )


def facets_of(
    tags: Mapping[str, tuple[str, ...]] | None,
    hours: Mapping[str, Any] | None,
    stream: bool | None,
    input_tokens: Mapping[str, int] | None,
) -> Facets | None:
    """What the fields of a document, as its readers left them, ask; None: nothing."""
    if tags is None and hours is None and stream is None and input_tokens is None:
        return None
    size = input_tokens or {}
    return Facets(
        tags=tuple((name, frozenset(values)) for name, values in (tags or {}).items()),
        spells=None if hours is None else _spells(hours),
        stream=stream,
        at_least=size.get("at_least", 0),
        at_most=size.get("at_most"),
    )


def minute_of_week(at_us: int, zone: tzinfo) -> int:
    """What the clocks on the wall show in that zone, in minutes since Monday 00:00.

    Where clocks are changed, an hour is there twice or not at all, as on the wall.
    """
    shown = (_EPOCH + timedelta(seconds=at_us // 1_000_000)).astimezone(zone)
    return shown.weekday() * _DAY_MINUTES + shown.hour * 60 + shown.minute


def _spells(hours: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """One beyond midnight belongs to the day on which it begins; Sunday's reaches into Monday."""
    start, end = _minute(hours.get("from", "00:00")), _minute(hours.get("to", "24:00"))
    if end <= start:
        end += _DAY_MINUTES
    found = []
    for day in hours.get("days", DAYS):
        midnight = DAYS.index(day) * _DAY_MINUTES
        found.append((midnight + start, midnight + end))
        if midnight + end > _WEEK_MINUTES:
            found.append((0, midnight + end - _WEEK_MINUTES))
    return tuple(found)


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _read_tags(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping) or not 0 < len(value) <= _MOST_TAGS:
        raise FieldError(
            f"does not name 1 to {_MOST_TAGS} tags", "write {name: value} or {name: [value, other]}"
        )
    return {_tag_name(name): _tag_values(name, one) for name, one in value.items()}


def _tag_name(name: Any) -> str:
    if isinstance(name, str) and TAG_NAME.fullmatch(name):
        return name
    raise FieldError(
        f"{name!r:.60} is not the name of a tag", "write 1 to 32 of a-z, 0-9, dots, dashes and _"
    )


def _tag_values(name: str, written: Any) -> tuple[str, ...]:
    values = read_texts([written] if isinstance(written, str) else written)
    for each in values:
        if not re.fullmatch(_TAG_VALUE, each):
            raise FieldError(
                f"{each!r:.80} is no value that the tag {name} can have",
                "write 1 to 64 printable characters without commas",
            )
    return values


def _read_hours(value: Any) -> dict[str, Any]:
    """`{from: "18:00", to: "08:00", days: [mon, fri]}`: each may be left out, one must be there."""
    if not isinstance(value, Mapping) or not value or not set(value) <= {"from", "to", "days"}:
        raise FieldError(
            "is not understood", 'write {from: "18:00", to: "08:00", days: [mon, tue]} or a part'
        )
    read = {name: _clock(name, value[name]) for name in ("from", "to") if name in value}
    if read.get("from", "00:00") == read.get("to", "24:00"):
        raise FieldError("begins when it ends", "leave from and to out where all day is meant")
    if "days" in value:
        read |= {"days": _days(value["days"])}
    return read


def _clock(name: str, value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        raise FieldError(
            f"{name} is the number {value}", 'YAML reads a bare 18:00 as a number; write "18:00"'
        )
    if isinstance(value, str) and (
        re.fullmatch(_CLOCK, value) or (name == "to" and value == "24:00")
    ):
        return value
    raise FieldError(f"{name}: {value!r:.60} is not a time of day", 'write it as "08:00"')


def _days(value: Any) -> tuple[str, ...]:
    days = read_texts(value)
    for day in days:
        if day not in DAYS:
            raise FieldError(f"{day!r} is not a day", f"choose from {', '.join(DAYS)}")
    return days


def _read_stream(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise FieldError(f"{value!r:.60} is not understood", "write true or false")


def _read_size(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping) or not value or not set(value) <= {"at_least", "at_most"}:
        raise FieldError("is not understood", "write {at_least: 8000, at_most: 32000} or one of it")
    for name, tokens in value.items():
        if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 <= tokens <= MAX_TOKENS:
            raise FieldError(
                f"{name}: {tokens!r:.60} is not a number of tokens", f"write 0 to {MAX_TOKENS}"
            )
    if value.get("at_least", 0) > value.get("at_most", MAX_TOKENS):
        raise FieldError("ends before it begins", "write the smaller number as at_least")
    return dict(value)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "minProperties": 1,
    }


_VALUE: Final = {"type": "string", "pattern": f"^{_TAG_VALUE}$"}
_TIME: Final = f"^{_CLOCK}$"
_TOKENS: Final = {"type": "integer", "minimum": 0, "maximum": MAX_TOKENS}

TAGS: Final = Reader(
    _read_tags,
    {
        "type": "object",
        "propertyNames": {"pattern": f"^{TAG_NAME.pattern}$"},
        "additionalProperties": {"anyOf": [_VALUE, listed(_VALUE)]},
        "minProperties": 1,
        "maxProperties": _MOST_TAGS,
    },
)
HOURS: Final = Reader(
    _read_hours,
    _object(
        {
            "from": {"type": "string", "pattern": _TIME},
            "to": {"type": "string", "pattern": f"^({_CLOCK}|24:00)$"},
            "days": listed({"enum": list(DAYS)}),
        }
    ),
)
STREAM: Final = Reader(_read_stream, {"type": "boolean"})
INPUT_TOKENS: Final = Reader(_read_size, _object({"at_least": _TOKENS, "at_most": _TOKENS}))
