"""Names in documents stand for ids; where one does not, what there is instead is said."""

import pytest

from gateway.commands.names import Names, UnknownNameError

SCOPE = {"team": "team_1"}


def test_a_budget_is_found_by_its_scope_and_period() -> None:
    names = Names({"budget": [{"id": "bud_1", "scope": SCOPE, "period": "day"}]})

    assert names.budget(SCOPE, "day") == "bud_1"


def test_who_names_another_period_hears_which_there_are() -> None:
    budgets = [
        {"id": f"bud_{period}", "scope": SCOPE, "period": period} for period in ("day", "total")
    ]
    names = Names({"budget": budgets})

    with pytest.raises(UnknownNameError, match=r"'month'; its budgets: day, total; say `period`"):
        names.budget(SCOPE, "month")
    with pytest.raises(UnknownNameError, match=r"'day'$"):
        names.budget({"team": "team_2"}, "day")
