"""Rows as CSV: what has to be quoted is, and what a spreadsheet would run is not run."""

import csv
import io

import pytest

from billing.csv_files import csv_text, safe_text


def test_what_is_written_is_read_back() -> None:
    rows = [("a", 'say "b"', "c,d", "e\r\nf", ""), ("1", "-2", "3", "4", "5")]

    written = "".join(csv_text(rows))

    assert written.endswith("\r\n")
    assert list(map(tuple, csv.reader(io.StringIO(written, newline="")))) == rows


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "\uff1dx"])
def test_a_formula_is_text(text: str) -> None:
    assert safe_text(text) == f"'{text}"


def test_plain_text_stays_as_it_is() -> None:
    assert [safe_text(text) for text in ("", "a=1", "1-2")] == ["", "a=1", "1-2"]
