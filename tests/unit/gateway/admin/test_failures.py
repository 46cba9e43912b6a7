"""Failures to prove who one is: counted by address and by token, forgiven with time, bounded."""

import pytest

from gateway.admin.failures import BURST, INTERVAL_US, Failures, network

NOW_US = 10**12
TOKEN = "0123456789abcdef"


def failed(failures: Failures, address: str, times: int, public_id: str | None = None) -> None:
    for _ in range(times):
        failures.failed(address, public_id, NOW_US)


def test_an_address_has_a_burst_of_failures_and_then_one_each_interval() -> None:
    failures = Failures()

    failed(failures, "192.0.2.1", BURST - 1)
    assert failures.wait_us("192.0.2.1", None, NOW_US) == 0
    failed(failures, "192.0.2.1", 1)

    assert failures.wait_us("192.0.2.1", None, NOW_US) == INTERVAL_US
    assert failures.wait_us("192.0.2.1", None, NOW_US + INTERVAL_US) == 0
    assert failures.wait_us("192.0.2.2", None, NOW_US) == 0


def test_all_is_forgiven_in_the_end() -> None:
    failures = Failures()
    failed(failures, "192.0.2.1", 10_000)

    later_us = NOW_US + 2 * BURST * INTERVAL_US

    assert failures.wait_us("192.0.2.1", None, later_us) == 0


def test_a_token_under_attack_is_still_heard_from_where_nobody_failed() -> None:
    failures = Failures()
    for number in range(200):
        failures.failed(f"198.51.100.{number}", TOKEN, NOW_US)

    assert failures.wait_us("192.0.2.1", TOKEN, NOW_US) == 0
    assert failures.wait_us("198.51.100.7", TOKEN, NOW_US) == INTERVAL_US, "one try, then wait"
    assert failures.wait_us("198.51.100.7", "another token...", NOW_US) == 0


def test_a_token_cannot_be_named_so_that_an_address_pays_for_it() -> None:
    failures = Failures()
    for number in range(50):
        failures.failed(f"198.51.100.{number}", "2001:db8:12::/64", NOW_US)

    assert failures.wait_us("2001:db8:12::1", None, NOW_US) == 0


def test_memory_is_bounded_whatever_is_tried() -> None:
    failures = Failures(most=100)
    for number in range(1_000):
        failures.failed(f"10.0.{number // 250}.{number % 250}", f"{number:016}", NOW_US)
        failures.let_in(number.to_bytes(32, "big"))

    assert len(failures) == 200


def test_who_was_let_in_is_remembered_until_the_token_ends() -> None:
    failures = Failures()
    failures.let_in(b"mark")
    assert failures.was_let_in(b"mark")

    failures.forget(b"mark")

    assert not failures.was_let_in(b"mark")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1:2:3", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("", ""),
        ("a socket", "a socket"),
    ],
)
def test_an_address_stands_for_one_subscriber(address: str, counted: str) -> None:
    assert network(address) == counted
