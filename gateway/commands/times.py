"""Times as people type them: a month, a day, or an instant that says its zone. What two people
would read differently is refused.
"""

import argparse
import re
from typing import Final

from gateway.clock import parse_rfc3339

HELP: Final = "a month, a day (both begin at midnight UTC), or a time such as 2026-10-31T12:00:00Z"

_MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LOCAL: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}(:[0-9]{2}){0,2}(\.[0-9]+)?")
_EITHER: Final = re.compile(r"[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4}")
_SHAPES: Final = "2026-10, 2026-10-31 or 2026-10-31T12:00:00Z"


class EmptySpanError(ValueError):
    """Nothing lies between the two times. The message says how a month is written."""


def instant(text: str) -> str:
    """For argparse: RFC 3339, as the API takes it."""
    if _LOCAL.fullmatch(text):
        said = f"{text!r} says no time zone: end it in Z for UTC, or in an offset such as +02:00"
        raise argparse.ArgumentTypeError(said)
    if not _DAY.fullmatch(text) and _EITHER.fullmatch(text):
        said = f"{text!r} is read as different days in different places: write it as 2026-10-31"
        raise argparse.ArgumentTypeError(said)
    whole = text
    if _MONTH.fullmatch(text):
        whole = f"{text}-01T00:00:00Z"
    elif _DAY.fullmatch(text):
        whole = f"{text}T00:00:00Z"
    try:
        parse_rfc3339(whole)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as {_SHAPES}") from None
    return whole


def check_span(start: str | None, end: str | None) -> None:
    """EmptySpanError for one that has nothing in it: its end is not part of it."""
    if start is not None and end is not None and parse_rfc3339(start) >= parse_rfc3339(end):
        raise EmptySpanError(
            f"from {start} until before {end} is no time at all: the end is not part of it; for "
            "the whole of October write --from 2026-10 --to 2026-11"
        )
