"""What a script says and its model says where sums of doubles are no longer exact."""

import msgspec

from gateway.stores.redis import keys
from policies.budgets import MAX_COUNTER, MONEY, NO_CAP, Account, Admission
from tests.property.test_lua_equals_model import FOREVER_MS, agree


def test_what_is_left_reads_alike_where_sums_are_no_longer_exact(store_server_url: str) -> None:
    tag = "beyond"
    account = Account(keys.account(tag, "b0", "w"), NO_CAP, 0, FOREVER_MS, MONEY, "b0")
    for money in (2, 3, MAX_COUNTER):
        steps = [
            Admission(hold_id, 30_000, money, 0, 0, 0, 0, 1, (), (), (account,), b"")
            for hold_id, money in (("req_0", MAX_COUNTER), ("req_1", money), ("req_2", 1))
        ]
        capped = msgspec.structs.replace(account, cap=1)
        steps[2] = msgspec.structs.replace(steps[2], accounts=(capped,))
        agree(store_server_url, tag, [list(steps)])
