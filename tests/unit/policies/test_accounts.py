"""When an account may be used."""

from policies.accounts import NO_CAP, Account, stale, unopened


def account(start_ms: int, end_ms: int, since_ms: int = 0, key: str = "a") -> Account:
    return Account(key, NO_CAP, start_ms, end_ms, 0, key, since_ms)


def test_a_window_begins_with_its_start_and_ends_before_its_end() -> None:
    accounts = [account(0, 100), account(10, 20)]

    assert [stale(accounts, now_ms) for now_ms in (9, 10, 19, 20, 100)] == [1, None, None, 1, 0]


def test_an_account_begins_at_zero_only_in_a_window_that_began_after_all_it_does_not_know() -> None:
    began = [account(10, 20, since_ms) for since_ms in (0, 10, 11)]

    assert [unopened([one], (), 0) for one in began] == [None, None, 0]
    assert [unopened([one], (), 11) for one in began] == [0, 0, 0]
    assert [unopened([one], {"a"}, 11) for one in began] == [None, None, None]
