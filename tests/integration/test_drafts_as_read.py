"""Whatever is asked of a draft is of one instant, though it is made anew at every other one."""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal

import httpx
import pytest
from sqlalchemy import Connection, Engine, event

from billing.meters import Meter, Meters
from billing.prices import Rate, sealed_card
from tests.admin_server import AdminServer, admin_server
from tests.invoicing import book, drafted, october
from tests.ledger_events import seed

CARD = sealed_card("USD", [Rate(Meter.INPUT, 7_000_000, "p_in")])


class Usage:
    """Comes, and is on the draft, whenever somebody begins to read."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._count, self._coming = engine, 1, False
        self.come()

    def come(self) -> None:
        self._count += 1
        tokens = Meters(input=1_000_000)
        book(self._engine, october(f"req_{self._count}", usage=tokens, charge_card=CARD))
        self.draft = drafted(self._engine)

    def before(self, connection: Connection) -> None:
        if connection.get_execution_options().get("meterhouse_reading") and not self._coming:
            self._coming = True
            self.come()
            self._coming = False


@pytest.fixture
def server(database_url: str) -> Iterator[AdminServer]:
    with admin_server(database_url) as server:
        seed(server.engine)
        yield server


def of_the_document(answer: httpx.Response) -> bool:
    found = answer.json()
    printed = [Decimal(line["printed"]) for line in found["lines"]]
    return sum(printed) == Decimal(found["invoice"]["total"])


def of_the_page(answer: httpx.Response) -> bool:
    return len(set(re.findall(r">([0-9]+\.[0-9]{2})(?: USD)?<", answer.text)) - {"7.00"}) == 1


def of_the_manifest(answer: httpx.Response) -> bool:
    found = answer.json()
    return Decimal(found["amount"]) == Decimal(found["total"])


def of_the_requests(answer: httpx.Response) -> bool:
    found = answer.json()
    return Decimal(found["billed"]) == Decimal(found["total"]) and found["adds_up"]


AGREE: dict[str, Callable[[httpx.Response], bool]] = {
    "invoice.json": of_the_document,
    "page.html": of_the_page,
    "manifest": of_the_manifest,
    "requests": of_the_requests,
}


@pytest.mark.parametrize("form", AGREE)
def test_a_draft_that_is_made_anew_meanwhile_is_answered_as_it_was_at_once(
    server: AdminServer, form: str
) -> None:
    usage = Usage(server.engine)
    with server.client() as client:
        event.listen(server.engine, "begin", usage.before)
        answer = client.get(f"/invoices/{usage.draft.id}/{form}")
        event.remove(server.engine, "begin", usage.before)

    assert answer.status_code == 200, answer.text
    assert AGREE[form](answer), answer.text


@pytest.mark.parametrize("form", ["lines.csv", "focus.csv", "focus-detail.csv", "requests.html"])
def test_so_is_each_of_its_tables(server: AdminServer, form: str) -> None:
    usage, views = Usage(server.engine), 0

    def begins(_connection: Connection) -> None:
        nonlocal views
        views += 1

    with server.client() as client:
        event.listen(server.engine, "begin", begins)
        answer = client.get(f"/invoices/{usage.draft.id}/{form}")
        event.remove(server.engine, "begin", begins)

    assert answer.status_code == 200, answer.text
    assert views == 1
