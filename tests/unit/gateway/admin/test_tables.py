"""CSV is answered to who prefers it."""

import pytest

from gateway.admin.tables import prefers_csv, write_csv


@pytest.mark.parametrize(
    ("accept", "csv"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/csv", True),
        ("text/csv, */*;q=0.1", True),
        ("application/json, text/csv;q=0.5", False),
        ("application/json;q=0.2, TEXT/CSV;q=0.9", True),
        ("text/csv;q=0", False),
        ("text/csv;q=nonsense", False),
    ],
)
def test_an_accept_header_chooses_the_form(accept: str, csv: bool) -> None:
    assert prefers_csv(accept) is csv


def test_a_table_of_any_size_is_written_and_read_back_whole() -> None:
    rows = [("a", "b"), *((str(n), 'say "hi"') for n in range(200_000))]
    with write_csv(rows) as file:
        text = file.read().decode()
    assert text.startswith('a,b\r\n0,"say ""hi"""\r\n')
    assert text.count("\r\n") == 200_001
