"""Rows as CSV: RFC 4180, and text that no spreadsheet runs."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final


def csv_text(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """RFC 4180, one record at a time, so that an export of any size needs no memory."""
    for row in rows:
        yield ",".join([_quoted(each) if _NEEDS_QUOTES(each) else each for each in row]) + "\r\n"


def safe_text(text: str) -> str:
    """Behind an apostrophe where a spreadsheet would run it as a formula. For text columns only."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


_FORMULA_STARTS: Final = (
    *("=", "+", "-", "@", "\t", "\r", "\n"),
    *("\uff1d", "\uff0b", "\uff0d", "\uff20"),  # the same four, full width
)

_NEEDS_QUOTES: Final = re.compile('[,"\r\n]').search


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
