"""Which price a document means."""

from typing import Any

import pytest

from gateway.commands.pricing import ImmutablePriceError, imagined, same_price, settled

NEW_YEAR = "2026-01-01T00:00:00Z"


def price(identifier: str = "", amount: str = "1", state: str = "approved", **fields: Any) -> Any:
    said = {"amount_per_million": amount, "currency": "USD", "state": state}
    return {"id": identifier, "effective_from": NEW_YEAR} | said | fields


def meant(found: list[Any], wanted: Any, *kept: str) -> str | None:
    match = same_price(found, wanted, set(kept))
    return None if match is None else match["id"]


def test_of_a_draft_and_an_approved_price_of_one_date_each_document_means_its_own() -> None:
    there = [price("a"), price("d", "2", "draft")]

    assert meant(there, price()) == "a"
    assert meant(there, price(amount="2", state="draft")) == "d"
    assert meant(there, price(amount="3", state="draft")) == "d"
    assert meant([price("d", state="draft")], price()) == "d"


def test_a_draft_that_was_approved_since_is_still_the_documents_price() -> None:
    assert meant([price("a")], price(state="draft")) == "a"
    assert settled(price(), price(state="draft")) == price()


def test_a_draft_of_another_amount_beside_an_approved_price_is_a_new_one() -> None:
    assert meant([price("a")], price(amount="2", state="draft")) is None


def test_equal_drafts_are_left_to_a_document_each() -> None:
    there = [price("d", state="draft"), price("e", state="draft")]

    assert meant(there, price(state="draft"), "d") == "e"
    assert meant(there, price(state="draft"), "d", "e") is None


def test_without_a_date_the_newest_is_meant_if_it_says_the_same() -> None:
    newer = price("n", "2", effective_from="2026-01-01T00:00:00.5Z")
    undated = {"effective_from": None}

    assert meant([newer, price("o")], price(amount="2.0") | undated) == "n"
    assert meant([newer, price("o")], price() | undated) is None
    assert settled(newer, price("n", "2.0") | undated) == newer


def test_an_approved_price_never_changes() -> None:
    assert settled(price(amount="0.10"), price(amount="0.1"))["amount_per_million"] == "0.10"
    with pytest.raises(ImmutablePriceError, match="later effective_from"):
        settled(price(), price(amount="2"))


def test_what_a_dry_run_supposes_was_made_of_an_undated_document_can_be_compared() -> None:
    supposed = imagined(price(amount="2") | {"effective_from": None})

    assert meant([supposed | {"id": "s"}], price(amount="3") | {"effective_from": None}) is None
    assert meant([supposed | {"id": "s"}], price(amount="2") | {"effective_from": None}) == "s"
    assert meant([supposed | {"id": "s"}], price()) is None
