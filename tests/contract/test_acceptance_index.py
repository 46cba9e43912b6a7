"""Where each acceptance case of billing has its tests. A case whose test is gone is a failure here.

Those of the databases run on SQLite and on PostgreSQL.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "tests"
CASES: dict[str, tuple[str, ...]] = {
    "1 the same work in two dialects costs the same": ("contract/test_billing_cases.py::case_01",),
    "2 delivered three times, billed once": (
        "contract/test_billing_cases.py::case_02",
        "integration/test_jobs_drain.py::what_the_ledger_refuses_is_set_aside",
        "integration/test_idempotency.py::a_key_means_something_only_for_its_application_key",
    ),
    "3 a worker is killed on both sides of the write": ("contract/test_billing_kills.py::case_03",),
    "4 a price holds from its instant": ("contract/test_billing_cases.py::case_04",),
    "5 ten thousand small calls, three thirds": ("contract/test_billing_cases.py::case_05",),
    "6 graduated and volume prices in any order": ("contract/test_price_cases.py::case_06",),
    "7 usage that comes within grace, and after it": ("contract/test_billing_cases.py::case_07",),
    "8 a month of 745 hours, a day that starts at 18:30Z": (
        "contract/test_billing_cases.py::case_08",
    ),
    "9 two hundred at once on a hard budget": ("integration/test_budget_case.py::case_09",),
    "10 a client leaves, the provider bills on": ("contract/test_attempt_cases.py::case_10",),
    "11 retried, fallen back, asked again": (
        "contract/test_attempt_cases.py::case_11",
        "integration/test_idempotency.py::a_stored_answer_is_given_again_byte_for_byte_and_bills",
    ),
    "12 an hour of a box of our own": (
        "unit/billing/test_idle_case.py::case_12",
        "contract/test_idle_bookings.py::case_12",
    ),
    "13 teams move, centres are renamed": ("contract/test_billing_cases.py::case_13",),
    "14 priced in one currency, billed in another": (
        "contract/test_billing_currencies.py::case_14",
        "integration/test_admin_exchange_rates.py::an_invoice_in_another_currency",
    ),
    "15 tampering, credit notes, gapless numbers, a minimum": (
        "contract/test_issued_invoices.py::case_15",
        "contract/test_price_cases.py::case_15",
    ),
    "an unknown model is never priced at nothing": (
        "integration/test_routing.py::a_price_ceiling_and_an_unpriced_model_refuse_by_name",
        "unit/gateway/admin/test_catalogue.py::an_unknown_model_has_no_price_rather_than_zero",
    ),
    "the cliff of a context tier": (
        "contract/test_price_cases.py::the_edge_of_a_context_tier_is_a_cliff",
    ),
    "a commitment that ends inside a request": (
        "contract/test_commitment_cases.py::a_commitment_pays_whole_tokens",
    ),
    "usage that is dated ahead": (
        "integration/test_jobs_drain.py::what_is_dated_ahead_of_our_clock_is_set_aside",
        "integration/test_jobs_drain.py::what_was_dated_ahead_is_booked_once",
    ),
    "9007199254740993 tokens survive": (
        "contract/test_attempt_cases.py::more_tokens_than_a_float_can_count",
    ),
    "amounts below a millionth have no exponent": (
        "contract/test_attempt_cases.py::amounts_below_a_millionth",
        "unit/billing/test_money.py::an_amount_is_written_without_exponent",
    ),
    "the CSV adds up to the invoice": (
        "integration/test_admin_invoices.py::a_month_is_drafted_issued_exported_and_proves_itself",
        "property/test_invoices.py::an_invoice_of_the_rollups_is_what_the_events_were_charged",
    ),
    "FOCUS: our suite sees all planted defects, our export has none": (
        "unit/billing/test_focus.py::every_planted_defect_is_seen_and_named",
        "unit/billing/test_focus.py::there_are_26_defects",
        "unit/billing/test_focus.py::our_export_breaks_no_rule",
        "contract/test_focus_validator.py::the_public_validator_finds_nothing",
    ),
    "list and contract price side by side": ("contract/test_list_prices.py::a_contract_s_lines",),
    "a million rows in constant memory": (
        "integration/test_a_million_events.py::a_million_lines_are_exported_in_constant_memory",
    ),
    "a price in the wrong unit is held up": (
        "integration/test_admin_prices.py::an_import_says_which_drafts_leap",
        "integration/test_admin_prices.py::an_odd_price_is_approved_by_somebody_else",
    ),
    "a batch flag with the wrong key is an error": (
        "contract/test_tier_cases.py::a_batch_flag_with_the_wrong_key",
        "integration/test_admin_tier_prices.py::a_flag_with_the_wrong_key",
        "integration/test_service_tiers.py::a_tier_without_a_price_is_refused_by_name",
    ),
    "a success of no tokens is a row of nothing": (
        "contract/test_attempt_cases.py::a_success_of_no_tokens",
    ),
}


def test_all_fifteen_are_listed() -> None:
    numbered = [name.split()[0] for name in CASES if name[0].isdigit()]

    assert [int(each) for each in numbered if len(each) < 3] == list(range(1, 16))


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_the_tests_that_are_listed(case: str) -> None:
    for place in CASES[case]:
        file, _, begins = place.partition("::")
        names = [
            node.name
            for node in ast.parse((ROOT / file).read_text()).body
            if isinstance(node, ast.FunctionDef)
        ]
        assert any(name.startswith(f"test_{begins}") for name in names), place
