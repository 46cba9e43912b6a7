from typing import Any

import pytest

from policies.readers import FieldError
from policies.shadow import read_shadow, shadow_of


def test_only_keys_below_the_scope_of_the_document_may_pay() -> None:
    written = {"model": "next", "percent": 1, "payer": {"key": "key_lab"}}
    at_team = shadow_of(written, "team", "team_1")
    at_tenant = shadow_of(written, "tenant", "tenant_1")

    assert at_team.may_pay("tenant_1", ("team_0", "team_1", "team_2"))
    assert not at_team.may_pay("team_1", ("team_0",))
    assert at_tenant.may_pay("tenant_1", ("team_0",))
    assert not at_tenant.may_pay("tenant_2", ("tenant_1",))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": ""}, "not a text"),
        ({"percent": 0}, "not a share"),
        ({"percent": True}, "not a share"),
        ({"percent": 101}, "not a share"),
        ({"payer": "key_lab"}, "pays for nothing"),
        ({"payer": {"team": "team_1"}}, "pays for nothing"),
        ({"payer": {"key": 3}}, "not a text"),
        ({"retries": 3}, "not understood"),
    ],
)
def test_a_shadow_that_cannot_be_meant_is_refused(changed: dict[str, Any], says: str) -> None:
    shadow = {"model": "next", "percent": 5, "payer": {"key": "key_lab"}} | changed
    with pytest.raises(FieldError, match=says):
        read_shadow(shadow)
