"""A provider's bill against what was metered, as typed: every planted discrepancy is named, with
its exact amount, and nothing else is.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from billing.meters import Meter, Meters, Provenance
from billing.prices import Rate, sealed_card
from billing.usage import UNKNOWN_ATTEMPT, UsageEvent
from gateway.__main__ import main
from gateway.clock import parse_rfc3339
from gateway.stores.sql import backends, usage
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import Backend
from tests.admin_server import TOKEN, admin_server
from tests.ledger_events import an_event

BACKEND = f"backend_{'a' * 26}"
CARD = sealed_card("USD", [Rate(Meter.INPUT, 3_000_000, "in"), Rate(Meter.OUTPUT, 15_000_000, "o")])
HEADER = "date,model,meter,quantity,amount,currency\n"


@pytest.fixture
def engine(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    with admin_server(database_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        with transaction(server.engine) as connection:
            hosted = Backend(
                id=BACKEND,
                name="hosted",
                dialect="openai",
                base_url="http://127.0.0.1:1",
                region="eu",
            )
            backends.RECORDS.add(connection, hosted)
        yield server.engine


def used(request: str, day: int, **given: Any) -> UsageEvent:
    at_us = parse_rfc3339(f"2026-10-{day:02d}T12:00:00Z")
    fields: dict[str, Any] = {
        "backend_id": BACKEND,
        "cost_card": CARD,
        "admitted_at_us": at_us,
        "usage": Meters(input=1_000_000, output=100_000),
    }
    return an_event(request, **(fields | given))


def a_month(engine: Engine) -> None:
    """One request a day, 3.00 + 1.50; a hedge that lost on the 6th, an estimate on the 5th, which
    the truth replaced on the 7th.
    """
    guess: dict[str, Any] = {"hold": "estimated", "provenance": Provenance.ESTIMATED}
    events = [used(f"req_{day}", day) for day in range(1, 9) if day != 4]
    events += [
        used("req_cut", 5, usage=Meters(input=2000, output=1000), reported=None, **guess),
        used("req_6", 6, attempt=2, winner=False, usage=Meters(input=40_000)),
        used("req_late", 7, attempt=UNKNOWN_ATTEMPT, usage=Meters(input=9_000), **guess),
    ]
    usage.record(engine, [(event, True) for event in events])
    usage.record(engine, [(used("req_late", 7, usage=Meters(input=8_000)), False)])


def line(day: int, meter: str, quantity: int, amount: str, model: str = "smol") -> str:
    return f"2026-10-{day:02d},{model},{meter},{quantity},{amount},USD\n"


def a_day(day: int, inputs: str = "3.000000", outputs: str = "1.500000") -> str:
    return line(day, "input", 1_000_000, inputs) + line(day, "output", 100_000, outputs)


AS_METERED = {
    **{day: a_day(day) for day in (1, 2, 3, 8)},
    5: line(5, "input", 1_002_000, "3.006") + line(5, "output", 101_000, "1.515"),
    6: line(6, "input", 1_040_000, "3.12") + line(6, "output", 100_000, "1.5"),
    7: line(7, "input", 1_008_000, "3.024") + line(7, "output", 100_000, "1.5"),
}
PLANTED = AS_METERED | {
    1: a_day(1, outputs="1.700000"),  # another price
    2: "",  # metered, not billed
    3: a_day(3) + line(3, "input", 70_000, "0.21", model="smol-pro"),  # billed, not metered
    5: line(5, "input", 1_002_000, "3.006") + line(5, "output", 101_700, "1.5255"),  # a low guess
    8: line(8, "input", 1_000_123, "3.000369") + line(8, "output", 100_000, "1.5"),  # their count
}
NAMED = [
    ("2026-10-01", "smol", "price", "output", "100000", "0.2"),
    ("2026-10-02", "smol", "not_billed", "input", "-1000000", "-3"),
    ("2026-10-02", "smol", "not_billed", "output", "-100000", "-1.5"),
    ("2026-10-03", "smol-pro", "not_metered", "input", "70000", "0.21"),
    ("2026-10-05", "smol", "estimated", "output", "700", "0.0105"),
    ("2026-10-08", "smol", "token_count", "input", "123", "0.000369"),
]


def imported(tmp_path: Path, capsys: pytest.CaptureFixture[str], days: dict[int, str]) -> str:
    file = tmp_path / "bill.csv"
    file.write_text(HEADER + "".join(days.values()))
    words = ("--backend", "hosted", "--period", "2026-10", "--json")
    assert main(["bill", "import", str(file), *words]) == 0, capsys.readouterr().err
    return str(json.loads(capsys.readouterr().out)["id"])


def test_a_bill_that_agrees_is_said_to_losing_attempts_and_late_truth_included(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_month(engine)
    bill = imported(tmp_path, capsys, AS_METERED)

    assert main(["bill", "reconcile", bill, "--most", "0"]) == 0

    assert capsys.readouterr().out == "billed 31.665 USD, metered 31.665: 0 (0 %)\n"


def test_five_planted_discrepancies_are_named_with_their_exact_amounts(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_month(engine)
    bill = imported(tmp_path, capsys, PLANTED)

    assert main(["bill", "reconcile", bill, "--csv"]) == 0
    table = list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:]
    assert main(["bill", "reconcile", bill, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["bill", "reconcile", bill, "--most", "4.00"]) == 1
    words = capsys.readouterr().out

    assert [tuple(row[:6]) for row in table] == NAMED
    assert table[0][-2:] == ["17", "15"]
    assert (told["billed"], told["metered"], told["gap"]) == ("27.585869", "31.665", "-4.079131")
    assert told["causes"] == {
        "estimated": "0.0105",
        "not_billed": "-4.5",
        "not_metered": "0.21",
        "price": "0.2",
        "token_count": "0.000369",
    }
    assert told["agreeing"] == 3
    assert "    price: 0.2  (17 a million output, not 15, 1 rows)" in words


def test_losing_attempts_that_were_not_billed_are_told_apart(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_month(engine)
    bill = imported(tmp_path, capsys, AS_METERED | {6: a_day(6)})

    assert main(["bill", "reconcile", bill, "--csv"]) == 0

    (only,) = list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:]
    assert only[:6] == ["2026-10-06", "smol", "losing_attempts", "input", "-40000", "-0.12"]


def test_a_file_is_imported_once_and_stays_as_it_is(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, capsys, AS_METERED)

    words = ("--backend", "hosted", "--period", "2026-10")
    assert main(["bill", "import", str(tmp_path / "bill.csv"), *words]) == 1
    assert "already" in capsys.readouterr().err
    assert main(["bill", "import", str(tmp_path / "bill.csv"), *words[:3], "2026-11"]) == 1
    assert "is not in 2026-11" in capsys.readouterr().err
    for statement in (
        "UPDATE provider_bills SET total_picos = 0",
        "DELETE FROM provider_bill_lines",
    ):
        with pytest.raises(DBAPIError, match="stays as it is"), transaction(engine) as connection:
            connection.execute(text(statement))


@pytest.mark.parametrize("period", ["9999-12", "0001-01"])
def test_a_bill_of_no_month_that_could_be_metered_is_not_imported(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], period: str
) -> None:
    file = tmp_path / "bill.csv"
    file.write_text(f"{HEADER}{period}-15,smol,input,1,1,USD\n")

    assert main(["bill", "import", str(file), "--backend", "hosted", "--period", period]) == 1

    assert f"{period}' is not a month" in capsys.readouterr().err


def test_a_bill_that_sqlite_has_no_room_for_is_refused_by_its_line(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bill.csv"
    file.write_text(HEADER + line(1, "input", 1, "1") + line(2, "input", 1, "9223372.036854775808"))
    words = ("--backend", "hosted", "--period", "2026-10")

    done = main(["bill", "import", str(file), *words])

    said = capsys.readouterr()
    if engine.dialect.name == "postgresql":
        assert done == 0
    else:
        assert done == 1
        assert "the line of 2026-10-02, smol, input comes to 9223372.036854775808" in said.err
