"""Characters that nobody sees in a name, and that make it read like another one, or turn around how
what stands beside it is read.

What shapes a letter is no such character beside the letters that it shapes: Persian, the scripts of
India, the selectors of Japanese and Mongolian, and emoji of several parts need them. Beside Latin,
Greek, Cyrillic and Hebrew letters, digits and spaces they do nothing.
"""

import re
import unicodedata
from typing import Final

_NEVER: Final = (
    "\x80-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_JOINERS: Final = "\u200c\u200d"
_SELECTORS: Final = "\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_SEARCH: Final = re.compile(
    f"[{_NEVER}]"
    f"|(?:^|(?<=[\0-\u05ff\\s{_JOINERS}]))[{_JOINERS}{_SELECTORS}]"
    f"|(?<=[{_SELECTORS}])[{_SELECTORS}]"
    f"|[{_JOINERS}](?=\\s|$)"
)


def first(text: str) -> str | None:
    """The first of the text, by its number and its name; None without one."""
    found = None if text.isascii() else _SEARCH.search(text)
    return None if found is None else _named(found[0])


def shown(text: str) -> str:
    """The same with each of them in brackets, by its number."""
    if text.isascii():
        return text
    return _SEARCH.sub(lambda found: f"[{_number(found[0])}]", text)


def _named(character: str) -> str:
    return f"{_number(character)} {unicodedata.name(character, '')}".strip()


def _number(character: str) -> str:
    return f"U+{ord(character):04X}"
