import pytest

from gateway.backends.endpoint import Endpoint


def test_a_base_url_is_taken_apart() -> None:
    assert Endpoint.parse("https://api.example.com/v1/", "c1") == Endpoint(
        "api.example.com", 443, tls=True, base_path="/v1", credential_id="c1"
    )
    assert Endpoint.parse("http://10.0.0.5:8000") == Endpoint(
        "10.0.0.5", 8000, tls=False, base_path=""
    )


def test_the_host_header_leaves_out_the_usual_port_and_brackets_ipv6() -> None:
    assert Endpoint.parse("https://api.example.com/v1").authority == "api.example.com"
    assert Endpoint.parse("https://api.example.com:8443").authority == "api.example.com:8443"
    assert Endpoint.parse("http://[::1]:8000/v1").authority == "[::1]:8000"
    assert Endpoint.parse("http://[::1]/v1").authority == "[::1]"


def test_equal_origins_with_other_credentials_are_other_endpoints() -> None:
    assert Endpoint.parse("http://a", "1") != Endpoint.parse("http://a", "2")
    assert hash(Endpoint.parse("http://a", "1")) == hash(Endpoint.parse("http://a/", "1"))


def test_an_international_name_is_sent_in_its_ascii_form() -> None:
    assert Endpoint.parse("http://bücher.example").authority == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com",
        "unix:///run/x",
        "http://",
        "http://example.com/v1?key=1",
        "http://example.com/#x",
        "http://user:secret@example.com",
        "http://example.com:99999",
        "http://example.com/a b",
        "http://example.com/ü",
        "http://exa mple.com",
        "http://example.com\r\n",
    ],
)
def test_what_is_no_plain_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Endpoint.parse(url)
