"""A month that is voided and invoiced anew, while a later invoice has late usage of it: every line
leads to the requests that it bills, and every request to the invoice that bills it.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from billing.invoices import OF_USAGE
from billing.meters import Meter, Meters, Provenance
from billing.prices import Rate, RateCard, sealed_card
from billing.quantity import Schedule, Step
from gateway.stores.sql import explained, issuing, usage_requests
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from tests.invoicing import ACME, book, drafted, issued, lines_of, october
from tests.ledger_events import a_ledger

STEPS = (Step(0, 3_000_000), Step(10_000_000, 2_000_000), Step(20_000_000, 1_000_000))
CARDS = {
    "flat": sealed_card("USD", [Rate(Meter.INPUT, 3_000_000, "p_in")]),
    "graduated": sealed_card(
        "USD", [Rate(Meter.INPUT, 3_000_000, "p_in", Schedule("graduated", STEPS))]
    ),
    "volume": sealed_card("USD", [Rate(Meter.INPUT, 3_000_000, "p_in", Schedule("volume", STEPS))]),
}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


@pytest.fixture(params=list(CARDS))
def card(request: pytest.FixtureRequest) -> RateCard:
    return CARDS[request.param]


def use(engine: Engine, name: str, tokens: int, card: RateCard, **given: Any) -> None:
    book(engine, october(name, usage=Meters(input=tokens), charge_card=card, **given))


def void(engine: Engine, invoice: Invoice) -> None:
    with transaction(engine) as connection:
        issuing.void(connection, issuing.locked(connection, invoice), "wrong address")


def behind(engine: Engine, invoice: Invoice) -> set[str]:
    """The requests behind all lines of usage; each line must add up, and so must the whole."""
    found: set[str] = set()
    with reading(engine) as connection:
        for line in lines_of(engine, invoice):
            of_line = explained.behind(connection, invoice, line)
            assert of_line.adds_up, line
            if line.line_kind in OF_USAGE:
                events = explained.events(connection, of_line, None, 1_000)
                assert len(events) == of_line.events
                found |= {each.event_id for each in events}
        assert explained.behind(connection, invoice, None).adds_up
    return found


def numbers(engine: Engine) -> dict[str, str]:
    pages = usage_requests.page(
        engine, start_us=0, end_us=2**61, filters={"tenant_id": ACME}, after=None, limit=100
    )
    with reading(engine) as connection:
        return explained.billed_by(connection, [each for request in pages for each in request])


def test_a_month_billed_anew_leads_to_all_but_what_a_later_invoice_has(
    engine: Engine, card: RateCard
) -> None:
    use(engine, "req_1", 6_000_001, card)
    use(engine, "req_2", 3_000_000, card, team_path=("team_eu",))
    first = issued(engine, drafted(engine))
    use(engine, "req_late", 14_000_000, card)
    november = issued(engine, drafted(engine, "2026-11"), early=True)
    use(engine, "req_later", 2_000_000, card)
    void(engine, first)
    draft = drafted(engine)
    assert behind(engine, draft) == {"req_1:1", "req_2:1", "req_later:1"}

    again = issued(engine, draft)
    use(engine, "req_last", 1_000, card)
    december = drafted(engine, "2026-11")

    assert behind(engine, first) == {"req_1:1", "req_2:1"}
    assert behind(engine, november) == {"req_late:1"}
    assert behind(engine, again) == {"req_1:1", "req_2:1", "req_later:1"}
    assert behind(engine, december) == {"req_last:1"}
    of_again = dict.fromkeys(("req_1:1", "req_2:1", "req_later:1"), again.number)
    assert numbers(engine) == of_again | {"req_late:1": november.number}


def test_late_usage_whose_invoice_is_voided_goes_where_it_is_billed_next(
    engine: Engine,
) -> None:
    card = CARDS["graduated"]
    use(engine, "req_1", 9_000_000, card)
    first = issued(engine, drafted(engine))
    use(engine, "req_late", 14_000_000, card)
    november = issued(engine, drafted(engine, "2026-11"), early=True)
    void(engine, first)
    again = issued(engine, drafted(engine))
    use(engine, "req_last", 1_000, card)
    void(engine, november)
    anew = issued(engine, drafted(engine, "2026-11"), early=True)

    assert behind(engine, november) == {"req_late:1"}
    assert behind(engine, again) == {"req_1:1"}
    assert behind(engine, anew) == {"req_late:1", "req_last:1"}
    of_anew = dict.fromkeys(("req_late:1", "req_last:1"), anew.number)
    assert numbers(engine) == of_anew | {"req_1:1": again.number}


def test_an_estimate_taken_back_on_a_later_invoice_stays_behind_the_month_billed_anew(
    engine: Engine,
) -> None:
    card = CARDS["graduated"]
    guess: dict[str, Any] = {"provenance": Provenance.ESTIMATED, "hold": "estimated"}
    use(engine, "req_1", 12_000_000, card, **guess)
    first = issued(engine, drafted(engine))
    use(engine, "req_1", 3_000_000, card)
    november = issued(engine, drafted(engine, "2026-11"), early=True)
    corrected = behind(engine, november)
    void(engine, first)
    again = issued(engine, drafted(engine))

    assert behind(engine, again) == behind(engine, first)
    assert not corrected & behind(engine, again)
    of_november = dict.fromkeys(corrected, november.number)
    assert numbers(engine) == of_november | dict.fromkeys(behind(engine, again), again.number)
