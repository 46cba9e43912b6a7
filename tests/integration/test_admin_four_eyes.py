"""One rule for everything that takes two people: who drafted it does not put it in force, by no
token of his. A table of all that is approved or issued.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from billing.meters import Meters
from gateway.admin.api import operations
from gateway.clock import parse_rfc3339
from gateway.stores.sql import usage
from tests.admin_server import AdminServer, Made, admin_server
from tests.ledger_events import an_event

DAYS = count(1)
PRICE = {"book": "charge", "meter": "input", "currency": "USD"}
OCTOBER = {"period": "2026-10"}


class Office:
    """A tenant that used something in October; `admin` is the installation's token."""

    def __init__(self, server: AdminServer, admin: httpx.Client) -> None:
        self.server, self.admin, self.made = server, admin, Made(admin)
        self.tenant = self.made.tenant(currency="USD", timezone="UTC")
        team = self.made.team(self.tenant["id"])
        key = self.made.key(team["id"])
        event = an_event(
            f"req_{self.tenant['id']}",
            tenant_id=self.tenant["id"],
            team_path=(team["id"],),
            key_id=key["id"],
            usage=Meters(input=10_000_000),
            admitted_at_us=parse_rfc3339("2026-10-14T12:00:00Z"),
        )
        usage.record(server.engine, [(event, True)])

    def agree(self, *, four_eyes: bool, by: httpx.Client | None = None) -> None:
        path = f"/tenants/{self.tenant['id']}/billing"
        assert (by or self.admin).put(path, json={"four_eyes": four_eyes}).is_success

    def issued(self, by: httpx.Client) -> dict[str, Any]:
        draft = Made(by).make("invoices", tenant_id=self.tenant["id"], **OCTOBER)
        return dict(self.admin.post(f"/invoices/{draft['id']}/issue").json())


def odd_price(office: Office, by: httpx.Client) -> str:
    price = PRICE | {"model": office.made.name(), "amount_per_million": "0.000003"}
    return f"/prices/{Made(by).make('prices', **price, state='draft')['id']}/approve"


def imported_price(office: Office, by: httpx.Client) -> str:
    """Of what is sold for next to nothing until now."""
    model = office.made.name()
    office.made.make("prices", **PRICE, model=model, amount_per_million="0.01")
    asked = {"provider": "openai", "model": "gpt-4o", "as_model": model}
    drafts = by.post("/prices/import", json=asked).json()["items"]
    (price,) = (each for each in drafts if each["meter"] == "input")
    return f"/prices/{price['id']}/approve"


def odd_discount(office: Office, by: httpx.Client) -> str:
    whole = {"tenant_id": office.tenant["id"], "percent": "51", "state": "draft"}
    return f"/discounts/{Made(by).make('discounts', **whole)['id']}/approve"


def odd_commitment(office: Office, by: httpx.Client) -> str:
    dear = {"amount": "100", "term": "month", "first_day": "2999-01-01", "overage_percent": "900"}
    made = Made(by).make("commitments", tenant_id=office.tenant["id"], **dear, state="draft")
    return f"/commitments/{made['id']}/approve"


def leaping_rate(office: Office, by: httpx.Client) -> str:
    rate = {"base": "USD", "quote": "CHF", "source": "ECB", "day": f"2026-10-{next(DAYS):02}"}
    office.admin.post("/exchange-rates", json=rate | {"rate": "0.9"})
    drafted = Made(by).make("exchange-rates", **rate, rate="1.1111", state="draft")
    return f"/exchange-rates/{drafted['id']}/approve"


def repricing(office: Office, by: httpx.Client) -> str:
    proposed = Made(by).make("repricings", tenant_id=office.tenant["id"], **OCTOBER)
    return f"/repricings/{proposed['id']}/approve"


def agreed_invoice(office: Office, by: httpx.Client) -> str:
    office.agree(four_eyes=True)
    draft = Made(by).make("invoices", tenant_id=office.tenant["id"], **OCTOBER)
    return f"/invoices/{draft['id']}/issue"


def agreed_credit_note(office: Office, by: httpx.Client) -> str:
    invoice = office.issued(by)
    office.agree(four_eyes=True)
    path = f"/invoices/{invoice['id']}/credit-notes"
    return f"/invoices/{by.post(path, json={'amount': '1', 'reason': 'late'}).json()['id']}/issue"


def ended_invoice(office: Office, by: httpx.Client) -> str:
    """Whoever drafts it ends the rule first."""
    path = agreed_invoice(office, by)
    office.agree(four_eyes=False, by=by)
    return path


def ended_credit_note(office: Office, by: httpx.Client) -> str:
    invoice = office.issued(by)
    office.agree(four_eyes=True)
    office.agree(four_eyes=False, by=by)
    path = f"/invoices/{invoice['id']}/credit-notes"
    return f"/invoices/{by.post(path, json={'amount': '1', 'reason': 'late'}).json()['id']}/issue"


Drafts = Callable[[Office, httpx.Client], str]
TABLE: tuple[tuple[str, Drafts], ...] = (
    ("/prices/{id}/approve", odd_price),
    ("/prices/{id}/approve", imported_price),
    ("/discounts/{id}/approve", odd_discount),
    ("/commitments/{id}/approve", odd_commitment),
    ("/exchange-rates/{id}/approve", leaping_rate),
    ("/repricings/{id}/approve", repricing),
    ("/invoices/{id}/issue", agreed_invoice),
    ("/invoices/{id}/issue", agreed_credit_note),
    ("/invoices/{id}/issue", ended_invoice),
    ("/invoices/{id}/issue", ended_credit_note),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminServer]:
    folder = tmp_path_factory.mktemp("four_eyes")
    with admin_server(f"sqlite:///{folder / 'ledger.sqlite'}") as server:
        yield server


@pytest.fixture
def office(server: AdminServer) -> Iterator[Office]:
    with server.client() as admin:
        yield Office(server, admin)


def test_the_table_has_whatever_is_approved_or_issued() -> None:
    steps = {each.path for each in operations() if each.path.endswith(("/approve", "/issue"))}

    assert {path for path, _ in TABLE} == steps


@pytest.mark.parametrize(("operation", "drafts"), TABLE, ids=[each.__name__ for _, each in TABLE])
def test_who_drafted_it_does_not_put_it_in_force_by_any_token(
    office: Office, operation: str, drafts: Drafts
) -> None:
    role = {"role": "platform_admin"}
    ada, grace = (office.made.make("admin-tokens", name=office.made.name(), **role) for _ in "ag")
    with office.server.client(ada["secret"]) as own, office.server.client(grace["secret"]) as other:
        sock = Made(own).make("admin-tokens", name=office.made.name(), **role)
        path = drafts(office, own)
        with office.server.client(sock["secret"]) as hers:
            refused = [client.post(path) for client in (own, hers)]
        done = other.post(path)

    assert operation.partition("{id}")[2] == f"/{path.rpartition('/')[2]}"
    assert [(each.status_code, each.json()["code"]) for each in refused] == [(409, "four_eyes")] * 2
    said = {each.json()["detail"].partition("; ")[2] for each in refused}
    assert len(said) == 1
    assert said.pop().startswith(
        "who drafted it does not put it in force, nor does a token that he"
    )
    assert done.status_code == 200, done.text


def test_where_people_agreed_the_installations_token_is_bound_as_well(office: Office) -> None:
    path = agreed_invoice(office, office.admin)

    own = office.admin.post(path)

    assert (own.status_code, own.json()["code"]) == (409, "four_eyes")
    assert own.json()["detail"].startswith("four eyes are agreed for this tenant; who drafted it")


def test_what_does_not_leap_takes_nobody_else(office: Office) -> None:
    rate = {"base": "AUD", "quote": "NZD", "source": "RBA"}
    entered = [
        office.admin.post("/exchange-rates", json=rate | {"day": f"2026-10-{day}", "rate": each})
        for day, each in (("01", "1.00"), ("02", "1.10"), ("03", "1.0"), ("31", "0.95"))
    ]

    assert [each.json()["state"] for each in entered] == ["approved"] * 4
