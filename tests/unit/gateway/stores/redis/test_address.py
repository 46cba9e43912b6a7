"""Store URLs: what they name, and what is said of those that name nothing."""

import pytest

from gateway.stores.redis.address import AddressError, StoreAddress, parse


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://localhost", StoreAddress(host="localhost")),
        ("redis://:p%40ss@h:7000/2", StoreAddress("h", 7000, password="p@ss", database=2)),
        ("redis://u:p@[::1]:7000", StoreAddress("::1", 7000, username="u", password="p")),
        ("rediss://h?ssl_ca_certs=/ca", StoreAddress("h", tls=True, ca_file="/ca")),
        ("unix:///run/s.sock?db=1", StoreAddress(path="/run/s.sock", database=1)),
    ],
)
def test_a_url_names_a_store(url: str, named: StoreAddress) -> None:
    assert parse(url) == named


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis+cluster://h:1", "not available in this version"),
        ("redis+sentinel://h:1", "not available in this version"),
        ("http://h", "must begin with"),
        ("", "must begin with"),
        ("redis://", "names no host"),
        ("unix://", "needs the path"),
        ("redis://h:port", "malformed"),
        ("redis://h/nine", "must be a number"),
        ("redis://h?timeout=5", "unknown option 'timeout'"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_the_reason(url: str, fault: str) -> None:
    with pytest.raises(AddressError, match=fault):
        parse(url)


def test_a_refusal_never_repeats_the_password() -> None:
    with pytest.raises(AddressError) as told:
        parse("redis://user:hunter2@host:6379/x")
    assert "hunter2" not in str(told.value)
