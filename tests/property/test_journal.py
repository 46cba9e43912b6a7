"""Whatever is used, issued, credited and voided, in any order: every entry adds up to nothing in
each currency, balances are sums over entries, and everything derived anew is what is there.
"""

import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from billing.credit_notes import OverCreditedError
from billing.ledger import Billed, credit_postings, invoice_postings, void_postings
from billing.meters import Meters
from billing.money import minor_picos
from gateway.stores.sql import books, invoices, issuing, ledger
from gateway.stores.sql.draft_lines import PeriodClosedError
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.issuing import StandingError
from gateway.stores.sql.tables import postings
from tests.invoicing import ACME, agree, book, credited, drafted, issued, october
from tests.ledger_events import a_ledger

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["use", "use", "issue", "credit", "void"]),
        st.integers(1, 3_000_000),
    ),
    min_size=2,
    max_size=8,
)
AMOUNTS = st.integers(-(10**15), 10**15)
CURRENCIES = st.sampled_from(["USD", "EUR", "JPY"])


@given(
    st.integers(-(10**9), 10**9),
    CURRENCIES,
    CURRENCIES,
    st.dictionaries(st.sampled_from("abc"), AMOUNTS),
    AMOUNTS,
    st.integers(-(10**10), 10**10),
)
def test_an_invoice_s_entry_adds_up_to_nothing_in_each_currency(
    total: int, currency: str, home: str, used: dict[str, int], beyond: int, rounding: int
) -> None:
    billed = Billed(
        id="inv",
        tenant_id="t",
        currency=currency,
        total_minor=total,
        ledger_currency=home,
        used=used,
        lines_picos=sum(used.values()) + beyond + rounding,
        rounding_picos=rounding,
        at_us=1,
    )
    for entry in (invoice_postings(billed), credit_postings(billed)):
        sums = Counter[str]()
        for each in (*entry, *void_postings(entry, 2)):
            sums[each.currency] += each.amount_picos if each.kind != "void" else 0
        assert not any(sums.values())
        due = sum(each.amount_picos for each in entry if each.account == "due/t")
        assert due == minor_picos(total, currency)
        assert len({(each.kind, each.account) for each in entry}) == len(entry)


@settings(max_examples=12, deadline=None)
@given(STEPS, st.sampled_from([None, "20.00"]))
def test_the_journal_is_what_follows_from_what_was_done(
    steps: list[tuple[str, int]], minimum: str | None
) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        a_ledger(f"sqlite:///{Path(directory) / 'ledger.sqlite'}") as engine,
    ):
        agree(engine, minimum=minimum)
        for number, (step, figure) in enumerate(steps):
            with suppress(PeriodClosedError, OverCreditedError, StandingError):
                take(engine, step, number, figure)
        holds(engine)


def take(engine: Engine, step: str, number: int, figure: int) -> None:
    if step == "use":
        book(engine, october(f"req_{number}", usage=Meters(input=figure, output=figure // 7)))
        return
    if step == "issue":
        issued(engine, drafted(engine, f"2026-{9 + number % 3:02d}"), early=True)
        return
    there = invoices.page(engine, {"status": "issued"}, None, 50)
    if not there:
        return
    chosen = there[figure % len(there)]
    if step == "credit":
        credited(engine, chosen, 1 + figure % 500)
    else:
        with transaction(engine) as connection:
            issuing.void(connection, issuing.locked(connection, chosen), "typo")


def holds(engine: Engine) -> None:
    entries, accounts = Counter[tuple[str, str, str]](), Counter[tuple[str, str]]()
    with reading(engine) as connection:
        assert books.check(connection).faults == ()
        for each in connection.execute(select(postings)):
            entries[each.event_id, each.kind, each.currency] += each.amount_picos
            accounts[each.account, each.currency] += each.amount_picos
    assert not any(entries.values())
    balances = ledger.balances(engine, ACME)
    assert {key: picos for key, picos in accounts.items() if key in balances} == balances
    due = sum(
        minor_picos(each.total_minor, each.currency)
        for each in invoices.page(engine, {"status": "issued"}, None, 50)
    )
    assert balances.get(("due/tenant_acme", "USD"), 0) == due
