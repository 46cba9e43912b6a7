"""Prices of one model in two currencies as documents, dated or not: made, kept, and tried first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands import documents
from gateway.commands.documents import DocumentFault
from gateway.commands.reconcile import Reconciler
from gateway.commands.remote import Remote
from tests.admin_server import TOKEN, AdminServer, admin_server

HOUSE = """
{kind: backend, name: hosted, base_url: "http://10.1.2.3/v1", region: eu}
---
{kind: model, name: chat, targets: [{backend: hosted, upstream_model: m}]}
"""
PRICE = "\n---\n{kind: price, book: charge, model: chat, meter: input, "
USD = PRICE + 'amount_per_million: "3", currency: USD%s}'
JPY = PRICE + 'amount_per_million: "450", currency: JPY%s}'
DATED = ', effective_from: "2026-01-01T00:00:00Z"'


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


@pytest.fixture
def remote(server: AdminServer) -> Iterator[Remote]:
    with Remote(server.url, TOKEN) as remote:
        yield remote


def actions(remote: Remote, path: Path, text: str, *, dry_run: bool = False) -> list[str]:
    path.write_text(HOUSE + text)
    steps = Reconciler(remote, dry_run=dry_run).apply(documents.read([path]))
    return [step.action for step in steps if step.kind == "price"]


@pytest.mark.parametrize("when", ["", DATED])
def test_a_model_has_a_price_in_each_currency(remote: Remote, tmp_path: Path, when: str) -> None:
    path, text = tmp_path / "prices.yaml", USD % when + JPY % when

    assert actions(remote, path, text, dry_run=True) == ["create", "create"]
    assert actions(remote, path, text) == ["create", "create"]
    assert actions(remote, path, text) == ["unchanged", "unchanged"]
    assert {each["currency"] for each in remote.all("prices")} == {"USD", "JPY"}


def test_of_two_prices_without_a_date_one_would_be_over_before_it_begins(
    remote: Remote, tmp_path: Path
) -> None:
    raised = (USD % "").replace('"3"', '"4"')

    with pytest.raises(DocumentFault, match="twice, both without a date"):
        actions(remote, tmp_path / "prices.yaml", USD % "" + raised, dry_run=True)
    both = actions(remote, tmp_path / "prices.yaml", USD % DATED + raised, dry_run=True)
    assert both == ["create", "create"]
