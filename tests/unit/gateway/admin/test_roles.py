"""The table of roles: what everybody may do where, written out once more in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.roles import (
    TABLE,
    Path,
    Relation,
    Right,
    Role,
    Verdict,
    allowed,
    in_sight,
    may_hand_out,
    relation,
    verdict,
)

PATHS = st.lists(st.sampled_from("abc"), max_size=5).map(tuple)
CHANGES = [right for right in Right if not right.value.endswith(":read")]


def test_every_role_has_a_row() -> None:
    assert set(TABLE) == set(Role)


def test_nothing_outside_the_own_subtree_is_ever_allowed() -> None:
    outside = {Relation.PARENT, Relation.SIBLING, Relation.FOREIGN}

    assert not any(allowed(role, right) & outside for role in Role for right in Right)
    assert {
        verdict(role, right, where) for role in Role for right in Right for where in outside
    } == {Verdict.UNSEEN}


def test_what_can_be_read_at_all_can_be_read_everywhere_in_sight() -> None:
    """Lists are filtered by sight alone, so the right may not depend on the place."""
    reads = [right for right in Right if right.value.endswith(":read")]

    assert {len(allowed(role, right)) for role in Role for right in reads} <= {0, 2}


def test_a_team_admin_changes_nothing_at_his_own_node() -> None:
    assert all(Relation.OWN not in allowed(Role.TEAM_ADMIN, right) for right in CHANGES)


def test_an_auditor_reads_everything_and_changes_nothing() -> None:
    assert all(allowed(Role.AUDITOR, right) == frozenset() for right in CHANGES)
    assert all(allowed(Role.AUDITOR, right) for right in Right if right not in CHANGES)


@pytest.mark.parametrize("right", [Right.CATALOGUE_CHANGE, Right.PRICES_CHANGE])
def test_only_the_platform_changes_what_requests_cost_and_where_they_go(right: Right) -> None:
    assert [role for role in Role if allowed(role, right)] == [Role.PLATFORM_ADMIN]


def test_finance_changes_grants_rates_and_invoices_and_nothing_else() -> None:
    changed = {right for right in CHANGES if allowed(Role.FINANCE, right)}

    assert changed == {
        Right.GRANTS_CHANGE, Right.RATES_CHANGE, Right.INVOICES_DRAFT, Right.INVOICES_ISSUE,
        Right.PROVIDER_BILLS_IMPORT,
    }  # fmt: skip


def test_whoever_is_billed_issues_no_invoice() -> None:
    at_the_tenant = {role for role in Role if Relation.OWN in allowed(role, Right.INVOICES_ISSUE)}

    assert at_the_tenant == {Role.PLATFORM_ADMIN}, "who stands at no tenant"


def test_only_administrators_of_a_tenant_or_more_hand_out_tokens() -> None:
    givers = {role for role in Role if allowed(role, Right.TOKENS_CHANGE)}

    assert givers == {Role.PLATFORM_ADMIN, Role.TENANT_ADMIN}
    assert all(may_hand_out(Role.PLATFORM_ADMIN, role) for role in Role)
    assert {role for role in Role if may_hand_out(Role.TENANT_ADMIN, role)} == {
        Role.TENANT_ADMIN, Role.TEAM_ADMIN, Role.FINANCE, Role.AUDITOR,
    }  # fmt: skip


@given(st.sampled_from(Role), st.sampled_from(Role), st.sampled_from(Role))
def test_rights_never_grow_from_hand_to_hand(first: Role, second: Role, third: Role) -> None:
    if may_hand_out(first, second) and may_hand_out(second, third):
        assert may_hand_out(first, third)


@given(PATHS, PATHS)
def test_a_place_has_exactly_one_relation_to_another(mine: Path, theirs: Path) -> None:
    found = relation(mine, theirs)

    assert (found is Relation.OWN) == (mine == theirs)
    assert (found is Relation.PARENT) == (relation(theirs, mine) is Relation.BELOW)
    assert (found is Relation.FOREIGN) == (bool(mine) and bool(theirs) and mine[0] != theirs[0])
    assert in_sight(found) == (theirs[: len(mine)] == mine)


@given(PATHS, PATHS, PATHS)
def test_what_is_in_sight_of_what_is_in_sight_is_in_sight(a: Path, b: Path, c: Path) -> None:
    if in_sight(relation(a, b)) and in_sight(relation(b, c)):
        assert in_sight(relation(a, c))
