"""Promises about a connection, as backends write them."""

import math

import pytest

from gateway.backends.keepalive import KeepAlive, parse


@pytest.mark.parametrize(
    ("header", "promised"),
    [
        (b"timeout=5, max=100", KeepAlive(4.0, 99)),
        (b"timeout=5", KeepAlive(4.0, math.inf)),
        (b"Max=3 ,TIMEOUT = 10", KeepAlive(8.0, 2)),
        (b'timeout="60"', KeepAlive(48.0, math.inf)),
        (b"max=1", KeepAlive(math.inf, 0)),
        (b"max=0", KeepAlive(math.inf, 0)),
        (b"timeout=0, max=100", KeepAlive(0.0, 0)),
        (b"timeout=5, timeout=20", KeepAlive(4.0, math.inf)),
    ],
)
def test_time_and_number_are_read_with_a_margin(header: bytes, promised: KeepAlive) -> None:
    assert parse(header) == promised


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"timeout",
        b"timeout=",
        b"timeout=-1",
        b"max=many",
        b"timeout=9999999999",
        b"x=1",
        b"=,",
    ],
)
def test_what_cannot_be_read_promises_nothing(header: bytes) -> None:
    assert parse(header) == KeepAlive()
