import pytest

from billing.provider_bills import BillError, BillLine, read

HEADER = "date,model,meter,quantity,amount,currency,project\n"
A = "2026-10-14,smol,input,1000,0.0030,USD,a\n"


def test_lines_of_one_day_model_and_meter_are_added_up() -> None:
    bill = read(HEADER + A + "2026-10-14,smol,input,500,0.0015,USD,b\n")

    assert (bill.currency, bill.decimals, bill.rows) == ("USD", 4, 2)
    assert bill.lines == (BillLine("2026-10-14", "smol", "input", 1500, 4_500_000_000, 2),)


def test_a_line_that_equals_another_in_every_column_is_a_repeated_one() -> None:
    (line,) = read(HEADER + A + A + A.replace(",a\n", ",b\n")).lines

    assert (line.quantity, line.lines) == (3000, 3)
    assert (line.repeated_quantity, line.repeated_picos) == (1000, 3_000_000_000)


def test_columns_are_found_by_their_names_and_under_what_the_file_calls_them() -> None:
    text = (
        "\ufeffcost,usage_date,model,currency,quantity,meter\r\n-0.5,2026-10-01,m,EUR,0,other\r\n"
    )

    bill = read(text, {"amount": "cost", "date": "usage_date"})

    assert bill.lines == (BillLine("2026-10-01", "m", "other", 0, -500_000_000_000, 1),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the header needs date, model"),
        (HEADER, "no line under the header"),
        ("date,date,model,meter,quantity,amount,currency\n", "needs date once"),
        (HEADER + A.replace("input", "inputs"), "line 2: 'inputs' is no meter"),
        (HEADER + A.replace("2026-10-14", "14.10.2026"), "is no date"),
        (HEADER + A.replace("2026-10-14", "2026-02-30"), "is no date"),
        (HEADER + A.replace("1000", "1e3"), "is no quantity"),
        (HEADER + A.replace("0.0030", "$0.003"), "is not a decimal amount"),
        (HEADER + A.replace("0.0030", "0.0000000000001"), "13 decimals"),
        (HEADER + A.replace("USD", "usd"), "line 2: "),
        (HEADER + A.replace("smol", ""), "no name of a model"),
        (HEADER + A.replace("smol", "").replace("input", "other"), "write what it is for"),
        (HEADER + A + A.replace("USD", "EUR"), "line 3: a bill has one currency"),
        (HEADER + "2026-10-14,smol\n", "fewer than the header"),
        (HEADER + '"2026-10-14\n', "line 2: "),
    ],
)
def test_what_is_no_bill_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(BillError, match=words.replace("$", r"\$")):
        read(text)
