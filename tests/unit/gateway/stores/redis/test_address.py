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
        ("redis://h:1,i:2", "redis\\+cluster:// for several"),
        ("redis+cluster://h:1,:2", "names no host"),
        ("redis+cluster://h:x", "malformed"),
        ("redis+cluster://h:1/3", "one database"),
        ("redis+cluster://h?db=3", "unknown option 'db'"),
        ("redis+sentinel://h:1", "needs the service's name"),
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


def test_a_cluster_is_asked_at_any_of_its_servers() -> None:
    found = parse("rediss+cluster://u:p%40ss@h:7000,[::1]:7001,i?ssl_ca_certs=/ca")
    assert (found.kind, found.seeds) == ("cluster", (("h", 7000), ("::1", 7001), ("i", 6379)))
    assert found.server("i", 7003) == StoreAddress(
        "i", 7003, tls=True, ca_file="/ca", username="u", password="p@ss"
    )


def test_sentinels_have_credentials_of_their_own() -> None:
    found = parse("redis+sentinel://:pw@h,i:7000/house/2?sentinel_password=other")
    assert (found.kind, found.service) == ("sentinel", "house")
    assert found.server("m", 1) == StoreAddress("m", 1, password="pw", database=2)
    assert found.sentinels() == (
        StoreAddress("h", 26379, password="other"),
        StoreAddress("i", 7000, password="other"),
    )


def test_a_refusal_never_repeats_the_password() -> None:
    with pytest.raises(AddressError) as told:
        parse("redis://user:hunter2@host:6379/x")
    assert "hunter2" not in str(told.value)
