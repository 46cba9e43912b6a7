"""Where four eyes are agreed nobody issues what he drafted, credit notes included, and nobody ends
the rule for himself. On both databases.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from billing.credit_notes import OverCreditedError
from billing.terms import Terms
from gateway.stores.sql import admin_tokens, drafts, issuing, terms
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.issuing import StandingError
from gateway.stores.sql.rows import AdminToken
from gateway.stores.sql.second_person import SecondPersonError
from tests.invoicing import ACME, agree, drafted, hundred, is_intact, lines_of, total
from tests.ledger_events import a_ledger

ADA, GRACE = "adm_ada", "adm_grace"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        with transaction(engine) as connection:
            for who in (ADA, GRACE):
                token = AdminToken(
                    id=who, name=who, role="finance", scope_kind="platform", scope_id=""
                )
                admin_tokens.RECORDS.add(connection, token)
        yield engine


def issued_by(engine: Engine, draft: Invoice, who: str) -> Invoice:
    with transaction(engine) as connection:
        return issuing.issue(connection, issuing.locked(connection, draft), who, early=False)


def agreed_by(engine: Engine, who: str, *, four_eyes: bool) -> None:
    with transaction(engine) as connection:
        before = terms.of(connection, ACME)
        terms.put(connection, before, Terms(four_eyes=four_eyes), who)


def noted_by(engine: Engine, invoice: Invoice, minor: int, who: str) -> Invoice:
    with transaction(engine) as connection:
        found = issuing.locked(connection, invoice)
        return issuing.credit(connection, found, minor, "goodwill", None, who)


def test_whoever_drafts_does_not_end_the_rule_for_himself(engine: Engine) -> None:
    agreed_by(engine, GRACE, four_eyes=True)
    draft, _ = drafts.make_draft(engine, ACME, "2026-10", ADA)
    agreed_by(engine, ADA, four_eyes=False)

    with pytest.raises(SecondPersonError, match=r"until you ended that yourself.* a colleague"):
        issued_by(engine, draft, ADA)
    with transaction(engine) as connection:
        drafts.take_back(connection, draft.id)
    again, _ = drafts.make_draft(engine, ACME, "2026-10", ADA)
    with pytest.raises(SecondPersonError, match="a colleague"):
        issued_by(engine, again, ADA)
    agreed_by(engine, GRACE, four_eyes=True)
    agreed_by(engine, GRACE, four_eyes=False)
    assert issued_by(engine, again, ADA).status == "issued"


def test_a_credit_note_is_a_draft_that_somebody_else_issues(engine: Engine) -> None:
    invoice = hundred(engine)
    agree(engine, four_eyes=True)

    note = noted_by(engine, invoice, 60_00, ADA)
    with pytest.raises(SecondPersonError, match="a colleague"):
        issued_by(engine, note, ADA)
    done = issued_by(engine, note, GRACE)

    assert (note.status, note.number, total(note)) == ("draft", None, "-60.00")
    assert (done.status, done.number, total(done)) == ("issued", "INV-CN-000001", "-60.00")
    assert is_intact(engine, done) is True
    assert [line.line_kind for line in lines_of(engine, done)] == ["credit"]


def test_what_is_left_counts_when_a_note_is_issued(engine: Engine) -> None:
    invoice = hundred(engine)
    agree(engine, four_eyes=True)
    first, second = (noted_by(engine, invoice, 60_00, ADA) for _ in range(2))
    issued_by(engine, first, GRACE)

    with pytest.raises(OverCreditedError, match=r"40\.00 USD"):
        issued_by(engine, second, GRACE)

    with transaction(engine) as connection:
        assert drafts.take_back(connection, second.id)
    assert drafted(engine, "2026-11").kind == "invoice", "a note is nobody's draft of a month"


def test_a_note_on_what_was_voided_since_is_not_issued(engine: Engine) -> None:
    invoice = hundred(engine)
    agree(engine, four_eyes=True)
    note = noted_by(engine, invoice, 1_00, ADA)
    with transaction(engine) as connection:
        issuing.void(connection, issuing.locked(connection, invoice), "wrong tenant")

    again = drafted(engine)
    with pytest.raises(StandingError, match="only an issued invoice"):
        issued_by(engine, note, GRACE)
    assert (again.kind, again.id != note.id, total(again)) == ("invoice", True, "100.00")
