"""What pages are made of: amounts as people write them, clocks told apart, text as text."""

from zoneinfo import ZoneInfo

import pytest

from billing.printed import document, facts, grouped, row, row_of_words, shown_time, table

EVIL = '"><script>x</script>'


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("0", "0"),
        ("1234567.80", "1,234,567.80"),
        ("-0.50", "-0.50"),
        ("-1234.5", "-1,234.5"),
        ("999", "999"),
    ],
)
def test_thousands_are_apart_and_a_sign_stays(written: str, shown: str) -> None:
    assert grouped(written) == shown


def test_an_hour_that_a_clock_shows_twice_is_told_apart() -> None:
    berlin, half_past_two = ZoneInfo("Europe/Berlin"), 1_792_888_200_999_999

    assert shown_time(half_past_two, berlin) == "2026-10-25 02:30:00+02:00"
    assert shown_time(half_past_two + 3_600_000_000, berlin) == "2026-10-25 02:30:00+01:00"


def test_whatever_somebody_named_stands_on_the_page_as_text() -> None:
    body = [
        *facts([(EVIL, EVIL)]), table([(EVIL, 50), (EVIL, 50)], 1, "lines"), row([EVIL], [EVIL]),
        row_of_words(EVIL, 1, [EVIL], before=EVIL),
    ]  # fmt: skip

    text = "".join(document(EVIL, EVIL, "", body))

    assert "<script" not in text
    assert text.count("&lt;script") == 10
    assert "default-src 'none'" in text
