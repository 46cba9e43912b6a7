"""A usage row as it is sealed: what later columns say stands at the end, and where they say nothing
the row is what it was before there were any.
"""

from gateway.stores.sql.rederived import LATER, Booked, sealed

FIRST = tuple(range(len(Booked._fields) - len(LATER)))


def row(**later: str) -> tuple[object, ...]:
    return (*FIRST, *(later.get(name) for name in LATER))


def test_a_row_that_says_nothing_in_later_columns_is_sealed_as_it_always_was() -> None:
    assert len(FIRST) == 40, "the columns that there were when the chains began"
    assert sealed(row()) == FIRST


def test_what_a_row_says_in_a_later_column_stands_at_its_end_by_name() -> None:
    assert sealed(row(end_user="eu_1")) == (*FIRST, {"end_user": "eu_1"})
    assert sealed(row(end_user="")) == (*FIRST, {"end_user": ""})
    tier = {"service_tier": "standard", "tier_served": "default"}
    assert sealed(row(**tier)) == (*FIRST, tier)
