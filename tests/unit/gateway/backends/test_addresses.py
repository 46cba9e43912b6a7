import pytest

from gateway.backends import addresses


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::6464:64c8",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "2002:a9fe:a9fe::",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
        "2001:0:808:808::5601:5601",
    ],
)
def test_what_no_backend_lives_at_is_refused_in_every_spelling(address: str) -> None:
    assert not addresses.acceptable(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "10.0.0.8",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "100.100.100.100",
        "192.0.0.1",
        "8.8.8.8",
        "fd12:3456::1",
        "2606:4700::1111",
        "::ffff:10.0.0.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_a_backend_may_live_on_this_machine_in_this_network_and_anywhere(address: str) -> None:
    assert addresses.acceptable(address)


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "169.254.169.254.", "::g"])
def test_what_is_no_address_is_not_taken_for_one(text: str) -> None:
    assert not addresses.acceptable(text)


@pytest.mark.parametrize(
    "name",
    [
        "metadata.google.internal",
        "metadata.google.internal.",
        "METADATA.google.internal",
        "metadata",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "169.254.169.254.nip.io",
        "a9fea9fe.nip.io",
        "169-254-169-254.sslip.io",
        "x.xip.io.",
        "nip.io",
    ],
)
def test_names_known_to_lead_to_such_addresses_are_known(name: str) -> None:
    assert addresses.leads_astray(name)


@pytest.mark.parametrize(
    "name", ["gpu", "api.example.com", "metadata.example.com", "snip.io", "nip.io.example.com"]
)
def test_other_names_are_left_to_the_moment_they_are_resolved(name: str) -> None:
    assert not addresses.leads_astray(name)


def test_of_the_addresses_of_a_name_only_the_acceptable_are_left_in_their_order() -> None:
    given = ["10.0.0.2", "169.254.169.254", "fd00:ec2::254", "10.0.0.1", "10.0.0.2"]

    assert addresses.kept(given) == ["10.0.0.2", "10.0.0.1"]
