"""Backends and models: where requests go, and what clients ask for."""

from typing import Any

import httpx
import pytest

from gateway.stores.sql import configuration
from gateway.stores.sql.seal import Sealer
from tests.admin_server import SEALING_KEY, AdminServer, Made, refused

MISSING = "00000000000000000000000000"


def test_a_credential_goes_in_sealed_and_never_comes_out(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    backend = made.backend(credential="sk-hush")
    path, plain = f"/backends/{backend['id']}", {k: v for k, v in backend.items() if k != "id"}

    found = configuration.load(admin_house.engine).backends
    kept = next(each.credential_sealed for each in found if each.id == backend["id"])
    assert kept is not None
    assert b"sk-hush" not in kept
    assert Sealer(SEALING_KEY).unseal(backend["id"], kept) == "sk-hush"
    assert "sk-hush" not in admin_client.get(path).text + admin_client.get("/backends").text
    assert admin_client.put(path, json=plain).json()["has_credential"] is True
    assert (
        admin_client.put(path, json=plain | {"credential": None}).json()["has_credential"] is False
    )


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/v1",
        "example.com/v1",
        "//example.com/v1",
        "http:///v1",
        "https://user:pass@example.com/v1",
        "https://user@example.com/v1",
        "https://example.com/v1?key=1",
        "https://example.com/v1#x",
        "https://example.com:0/v1",
        "https://example.com:99999/v1",
        "https://example.com:port/v1",
        "https://exa mple.com/v1",
        "https://example.com\\@evil.test/v1",
        "http://169.254.169.254/v1",
        "http://[fe80::1]/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://2852039166/v1",
        "http://0xa9fea9fe/v1",
        "http://0251.0376.0251.0376/v1",
        "http://0.0.0.0/v1",
        "http://[::]/v1",
        "http://100.100.100.200/v1",
        "http://192.0.0.192/v1",
        "http://[fd00:ec2::254]/v1",
        "http://[64:ff9b::a9fe:a9fe]/v1",
        "http://[2002:a9fe:a9fe::]/v1",
        "http://[fe80::1%25eth0]/v1",
        "http://metadata.google.internal/v1",
        "http://Metadata.Google.Internal./v1",
        "http://169.254.169.254.nip.io/v1",
        "http://a..b/v1",
        "javascript:alert(1)",
        "file:///etc/passwd",
    ],
)
def test_a_backend_lives_at_a_plain_http_address(admin_client: httpx.Client, url: str) -> None:
    body = {"name": "b", "base_url": url, "region": "eu"}

    refused(admin_client.post("/backends", json=body), 422, "base_url")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "https://api.example.com/v1",
        "http://[::1]:9/v1",
        "http://gpu/v1/",
        "http://10.0.0.8:8000/v1",
        "http://[fd12::8]/v1",
    ],
)
def test_a_backend_may_live_on_premises(made: Made, url: str) -> None:
    assert made.backend(base_url=url)["base_url"] == url.rstrip("/")


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"jurisdictions": ["UK"]}, 422, "jurisdictions[0]"),
        ({"jurisdictions": ["DE", "DE"]}, 422, "jurisdictions"),
        ({"placement": "moon"}, 400, "placement"),
        ({"dialect": "morse"}, 400, "dialect"),
        ({"credential": "has space"}, 400, "credential"),
        ({"credential": "line\r\nx-evil: 1"}, 400, "credential"),
        ({"max_concurrency": 0}, 400, "max_concurrency"),
        ({"idle_timeout_ms": 0}, 400, "idle_timeout_ms"),
    ],
)
def test_a_backend_that_cannot_be_meant_is_refused(
    admin_client: httpx.Client, fields: dict[str, Any], status: int, field: str
) -> None:
    body = {"name": "refused", "base_url": "http://gpu/v1", "region": "eu"} | fields

    refused(admin_client.post("/backends", json=body), status, field)


def test_a_model_points_at_backends_that_exist_each_once(
    admin_client: httpx.Client, made: Made
) -> None:
    backend = made.backend()
    target = {"backend_id": backend["id"], "upstream_model": "m"}
    missing = {"backend_id": f"backend_{MISSING}", "upstream_model": "m"}

    def post(**fields: Any) -> httpx.Response:
        body = {"name": made.name(), "targets": [target]} | fields
        return admin_client.post("/models", json=body)

    refused(post(targets=[]), 400, "targets")
    refused(post(targets=[target, target]), 422, "targets")
    refused(post(targets=[target, missing]), 422, "targets[1].backend_id")
    refused(post(targets=[target | {"weight": 0}]), 400, "targets[0].weight")
    refused(post(capabilities=["flying"]), 400, "capabilities[0]")
    refused(post(context_window=10, max_output_tokens=11), 422, "max_output_tokens")
    refused(post(markup="1e3"), 400, "markup")
    assert post().status_code == 201
