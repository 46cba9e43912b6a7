"""The prices command, as typed: imported as drafts, held against a second source, approved by a
colleague where they are odd; against a real admin server.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from tests.admin_server import TOKEN, AdminServer, Made, admin_server

# 2.50 and 10.00 a million as the catalogue has them, and another price for what a cache had.
LITELLM = """{"sample_spec": {}, "azure/gpt-4o": {
  "input_cost_per_token": 2.5e-06, "output_cost_per_token": 0.00001,
  "cache_read_input_token_cost": 5e-07, "max_tokens": 16384, "litellm_provider": "azure"}}
"""
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminServer]:
    """An admin server that the command finds by its environment."""
    with admin_server(database_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        yield server


@pytest.fixture
def typed(server: AdminServer, capsys: pytest.CaptureFixture[str]) -> Typed:
    def run(*words: str) -> tuple[int, str, str]:
        status = main(["prices", *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_catalogues_prices_are_drafted_held_against_a_second_source_and_approved(
    typed: Typed, tmp_path: Path
) -> None:
    file = tmp_path / "model_prices.json"
    file.write_text(LITELLM)
    words = (
        "import",
        "gpt-4o",
        "--provider",
        "openai",
        "--as",
        "chat-default",
        "--from",
        "2026-01",
    )

    status, drafted, notes = typed(
        *words, "--cross-check", str(file), "--cross-check-model", "azure/gpt-4o"
    )
    drafts = json.loads(typed("list", "--drafts", "--json")[1])
    approved = typed("approve", *(each["id"] for each in drafts))
    listed = typed("list", "--model", "chat-default")[1]

    assert status == approved[0] == 0
    assert drafted.startswith("from genai-prices ")
    assert "sha256:" in drafted.splitlines()[0]
    amounts = {each["meter"]: each["amount_per_million"] for each in drafts}
    assert amounts == {"input": "2.5", "cache_read": "1.25", "output": "10"}
    (differs,) = [note for note in notes.splitlines() if "find out who is right" in note]
    assert differs.startswith("cache_read: model_prices.json sha256:")
    assert "asks 0.5, the catalogue 1.25" in differs
    (draft,) = [each for each in drafts if each["meter"] == "cache_read"]
    assert "model_prices.json sha256:" in draft["source"]
    assert draft["source"].endswith(" asks 0.5")
    assert all("asks" not in each["source"] for each in drafts if each is not draft)
    assert [line.split("  ")[-2] for line in listed.splitlines()] == ["approved"] * 3


def test_what_leaps_is_approved_by_a_colleague(
    server: AdminServer, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.25 before; 2.50 now."""
    before = {"book": "charge", "model": "m", "meter": "input", "currency": "USD"}
    with server.client() as client:
        role: dict[str, Any] = {"role": "platform_admin"}
        made = Made(client)
        made.make("prices", **before, amount_per_million="0.25")
        ada, grace = (made.make("admin-tokens", name=n, **role)["secret"] for n in ("a", "g"))
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", ada)
    _, _, notes = typed("import", "gpt-4o", "--provider", "openai", "--as", "m")
    drafts = json.loads(typed("list", "--model", "m", "--drafts", "--json")[1])
    (leaping,) = [each["id"] for each in drafts if each["meter"] == "input"]

    own = typed("approve", leaping)
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", grace)
    hers = typed("approve", leaping)

    assert "look twice before you approve it" in notes
    assert own[0] == 1
    assert "more than three times" in own[2]
    assert hers[0] == 0


def test_a_tier_that_was_left_out_is_named_with_the_option_that_brings_it(typed: Typed) -> None:
    _, _, notes = typed("import", "gpt-5", "--provider", "openai", "--as", "m-tiers")

    assert "batch, flex, priority: has prices of its own; name it with --tier" in notes
    assert "service_tiers" not in notes


def test_a_backends_cost_is_imported_for_what_it_serves(server: AdminServer, typed: Typed) -> None:
    with server.client() as client:
        backend = Made(client).backend()

    status, drafted, _ = typed(
        "import", "gpt-4o", "--provider", "openai", "--backend", backend["name"],
        "--upstream-model", "gpt-4o-eu",
    )  # fmt: skip

    assert status == 0
    assert f"cost  {backend['name']}/gpt-4o-eu  input  2.5 USD" in drafted
    assert typed("list", "--backend", backend["name"])[1].count("gpt-4o-eu") == 3


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", "[]", "has no model 'gpt-4o'; --cross-check-model names it"),
        ("a.json", "{", "is no JSON"),
        ("a.json", '{"gpt-4o": {"mode": "chat"}}', "has no price of 'gpt-4o'"),
        ("a.json", '{"gpt-4o": {"input_cost_per_token": 1e-13}}', "is no price of at most 6"),
        ("a.csv", "model,meter\n", "has no column amount_per_million"),
        ("a.csv", "model,meter,amount_per_million\ngpt-4o,input,2.50 USD\n", "is no amount"),
        ("a.csv", "model,meter,amount_per_million\nother,input,2\n", "has no price of 'gpt-4o'"),
    ],
)
def test_a_second_source_that_says_nothing_of_the_model_is_told_and_nothing_is_drafted(
    typed: Typed, tmp_path: Path, name: str, content: str, told: str
) -> None:
    file = tmp_path / name
    file.write_text(content)

    status, _, said = typed("import", "gpt-4o", "--as", "m", "--cross-check", str(file))

    assert (status, told in said) == (1, True), said
    assert json.loads(typed("list", "--json")[1]) == []


def test_a_table_is_a_second_source_too(typed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "page.csv"
    rows = ("gpt-4o,input,2.50", "gpt-4o,cache_read,1.25", "gpt-4o,output,10.000000")
    file.write_text("\n".join(("model,meter,amount_per_million", *rows)))

    status, _, said = typed("import", "gpt-4o", "--provider", "openai", "--cross-check", str(file))

    assert status == 0
    assert "find out who is right" not in said


def test_tiers_that_are_named_are_drafted_and_held_against_those_of_the_second_source(
    typed: Typed, tmp_path: Path
) -> None:
    """Half of the standard prices in batch; the map has another one for answers."""
    maps = tmp_path / "model_prices.json"
    per_token = {"input_cost_per_token_batches": 6.25e-07, "output_cost_per_token_batches": 6e-06}
    maps.write_text(json.dumps({"gpt-5": per_token}))
    table = tmp_path / "page.csv"
    rows = ("batch,input,0.625", "batch,cache_read,0.0625", "batch,output,5")
    head = "model,service_tier,meter,amount_per_million"
    table.write_text("\n".join((head, *(f"gpt-5,{row}" for row in rows))))
    words = ("import", "gpt-5", "--provider", "openai", "--tier", "batch", "--cross-check")

    _, drafted, differs = typed(*words, str(maps))
    _, _, agrees = typed(*words, str(table))

    assert "gpt-5  input batch  0.625 USD" in drafted
    assert drafted.count(" batch ") == 3
    told = [note for note in differs.splitlines() if "find out who is right" in note]
    assert [note.partition(":")[0] for note in told] == ["cache_read (batch)", "output (batch)"]
    assert "asks 6, the catalogue 5" in told[1]
    assert "find out who is right" not in agrees
    assert typed("list", "--tier", "batch")[1].count("gpt-5") >= 3
    assert typed("list", "--tier", "priority")[1] == ""
