"""Names that look the same are the same: what nobody sees is found, what writing needs stays."""

import pytest

from billing import unseen

TRICKS = {
    "Acme \u202eknab": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "a\u2066b": "U+2066 LEFT-TO-RIGHT ISOLATE",
    "\u200eAcme": "U+200E LEFT-TO-RIGHT MARK",
    "Acme\u200f": "U+200F RIGHT-TO-LEFT MARK",
    "Ac\u00adme": "U+00AD SOFT HYPHEN",
    "Acme\u200b": "U+200B ZERO WIDTH SPACE",
    "Ac\u200dme": "U+200D ZERO WIDTH JOINER",
    "\u0410\u043a\u043c\u200c\u0435": "U+200C ZERO WIDTH NON-JOINER",
    "\ufeffAcme": "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    "Acme\ufe0f": "U+FE0F VARIATION SELECTOR-16",
    "Acme\U000e0041": "U+E0041 TAG LATIN CAPITAL LETTER A",
    "Ac\u0085me": "U+0085",
    "\u3164": "U+3164 HANGUL FILLER",
    "\u062a\u06cc\u0645\u200c": "U+200C ZERO WIDTH NON-JOINER",  # behind the last letter
    "\u2764\ufe0f\ufe0f": "U+FE0F VARIATION SELECTOR-16",  # the second does nothing
}
NEEDED = (
    "Société «Été» & Söhne (Zürich) №5 — 50 %",
    "שלום",
    "日本 部",
    "\u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645",  # Persian
    "\u0915\u094d\u200d\u0937",  # Hindi
    "\u845b\U000e0100",  # a name's own shape of a letter
    "\U0001f469\u200d\U0001f4bb Team",
    "\U0001f3f3\ufe0f\u200d\U0001f308",
)


@pytest.mark.parametrize("text", TRICKS, ids=ascii)
def test_what_nobody_sees_is_found_and_shown(text: str) -> None:
    assert unseen.first(text) == TRICKS[text]
    assert TRICKS[text].partition(" ")[0] in unseen.shown(text)
    assert unseen.first(unseen.shown(text)) is None


@pytest.mark.parametrize("text", NEEDED, ids=ascii)
def test_what_shapes_the_letters_beside_it_is_no_trick(text: str) -> None:
    assert unseen.first(text) is None
    assert unseen.shown(text) == text
