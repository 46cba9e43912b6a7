from billing.ledger import Posting, postings
from gateway.stores.sql.tables import postings as table
from tests.unit.billing.samples import ADMITTED_US, card, event


def test_postings_have_the_columns_of_the_table() -> None:
    assert set(Posting.__struct_fields__) == {column.name for column in table.columns}


def test_a_charge_moves_from_the_teams_debt_to_the_tenants_revenue() -> None:
    debit, credit = (posting for posting in postings(event()) if posting.kind == "charge")

    assert (debit.account, debit.amount_picos) == ("receivable/tenant_1/team_inner", 4_380_000_000)
    assert (credit.account, credit.amount_picos) == ("revenue/tenant_1", -4_380_000_000)
    assert debit.at_us == ADMITTED_US


def test_a_cost_moves_from_service_to_what_the_provider_is_owed() -> None:
    debit, credit = (posting for posting in postings(event()) if posting.kind == "cost")

    assert debit.account == "cost_of_service/tenant_1/team_inner"
    assert credit.account == "provider/be_1"
    assert debit.amount_picos + credit.amount_picos == 0


def test_an_attempt_that_did_not_win_is_cost_alone() -> None:
    lost = event(winner=False, charge_picos=0)

    assert {posting.kind for posting in postings(lost)} == {"cost"}


def test_what_comes_to_nothing_is_not_posted() -> None:
    assert postings(event(charge_picos=0, cost_picos=0)) == ()
    assert {p.kind for p in postings(event(cost_card=None, cost_picos=0))} == {"charge"}


def test_a_cost_is_posted_in_the_currency_of_its_card() -> None:
    bought_in_euros = event(cost_card=card("EUR"))

    assert {(p.kind, p.currency) for p in postings(bought_in_euros)} == {
        ("charge", "USD"),
        ("cost", "EUR"),
    }
