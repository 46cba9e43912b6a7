"""Prices of service tiers as documents: of each tier they are another object."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands import documents
from gateway.commands.reconcile import Reconciler
from gateway.commands.remote import Remote
from tests.admin_server import TOKEN, AdminServer, admin_server

PRICES = """
{kind: price, book: charge, model: chat, meter: input, amount_per_million: 3, currency: USD}
---
{kind: price, book: charge, model: chat, meter: input, service_tier: batch,
 amount_per_million: %s, currency: USD}
"""


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


def test_a_tier_s_price_is_made_kept_and_followed_apart_from_the_standard_one(
    server: AdminServer, tmp_path: Path
) -> None:
    path = tmp_path / "prices.yaml"

    def applied(amount: str) -> list[tuple[str, str]]:
        path.write_text(PRICES % amount)
        steps = Reconciler(remote, dry_run=False).apply(documents.read([path]))
        return [(step.action, step.label) for step in steps]

    with Remote(server.url, TOKEN) as remote:
        first, again, changed = applied("1.5"), applied("1.50"), applied("1.2")

    standard, batch = "charge chat input", "charge chat input batch"
    assert first == [("create", standard), ("create", batch)]
    assert again == [("unchanged", standard), ("unchanged", batch)]
    assert changed == [("unchanged", standard), ("create", batch)]
